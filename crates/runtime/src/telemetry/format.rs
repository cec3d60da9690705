//! JSON log lines that carry the trace they belong to, so that a person can go from a line to its trace.

use std::fmt;
use std::sync::{Arc, OnceLock};

use opentelemetry::trace::TraceContextExt as _;
use tracing::dispatcher::WeakDispatch;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The subscriber that all layers belong to, once it is installed. Within an event it cannot be asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Installed(Arc<OnceLock<WeakDispatch>>);

impl<S: Subscriber> Layer<S> for Installed {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        // Err means that it is known already.
        let _set = self.0.set(subscriber.downgrade());
    }
}

/// Adds `trace_id` and `span_id` in front of what `inner` writes, if the line is written within a span that is traced.
/// `installed` has to be a layer of the same subscriber.
pub(super) struct WithTraceId<F> {
    pub inner: F,
    pub installed: Installed,
}

impl<S, N, F> FormatEvent<S, N> for WithTraceId<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(ids) = self.installed.current_ids(context) else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{{ids},{rest}"),
            None => writer.write_str(&line),
        }
    }
}

impl Installed {
    /// The two members, as JSON text; both ids are hexadecimal and need no escaping.
    fn current_ids<S, N>(&self, context: &FmtContext<'_, S, N>) -> Option<String>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let span = context.lookup_current()?;
        let dispatch = self.0.get()?.upgrade()?;
        let traced = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch)?;
        let ids = traced.span().span_context().clone();
        ids.is_valid().then(|| {
            format!(
                "\"trace_id\":\"{}\",\"span_id\":\"{}\"",
                ids.trace_id(),
                ids.span_id()
            )
        })
    }
}
