//! The trace context that travels in the headers `traceparent` and `tracestate` (W3C Trace Context).
//!
//! It is passed on as text, so that it survives a service that exports no traces, and turned into OpenTelemetry's
//! types only where a span is made.

use std::borrow::Cow;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::delivery::{HeaderValue, Headers};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Longest state that is passed on: what the standard asks everyone to carry at least.
const TRACESTATE_BYTES_MAX: usize = 512;

/// A trace context as text, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Trace {
    /// From texts that were kept; what is not well-formed is dropped.
    #[must_use]
    pub fn new(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let Some(traceparent) = traceparent.filter(|text| parse(text).is_some()) else {
            return Self::default();
        };
        let short =
            |text: &&str| text.len() <= TRACESTATE_BYTES_MAX && text.parse::<TraceState>().is_ok();
        Self {
            traceparent: Some(traceparent.to_owned()),
            tracestate: tracestate.filter(short).map(str::to_owned),
        }
    }

    /// What a message brings along.
    #[must_use]
    pub fn read(headers: Headers<'_>) -> Self {
        Self::new(headers.text(TRACEPARENT), headers.text(TRACESTATE))
    }

    /// The context of the span that is current here; none when traces are not exported.
    #[must_use]
    pub fn current() -> Self {
        Self::of(&tracing::Span::current())
    }

    /// The context of that span.
    #[must_use]
    pub fn of(span: &tracing::Span) -> Self {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return Self::default();
        }
        let state = span.trace_state().header();
        Self {
            traceparent: Some(format!(
                "00-{}-{}-{:02x}",
                span.trace_id(),
                span.span_id(),
                span.trace_flags() & TraceFlags::SAMPLED
            )),
            tracestate: Some(state).filter(|s| !s.is_empty()),
        }
    }

    /// This one, or `other` if this one is empty.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self.traceparent.is_some() {
            self
        } else {
            other
        }
    }

    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The same as a parent for OpenTelemetry; an empty context if there is none.
    #[must_use]
    pub fn context(&self) -> Context {
        let Some((trace_id, span_id, flags)) = self.traceparent().and_then(parse) else {
            return Context::new();
        };
        let state = self.tracestate().and_then(|text| text.parse().ok());
        let span = SpanContext::new(trace_id, span_id, flags, true, state.unwrap_or_default());
        Context::new().with_remote_span_context(span)
    }

    /// Makes `span` a child of this context. Without one, or without an exporter, it stays as it is.
    pub fn adopt(&self, span: &tracing::Span) {
        if self.traceparent.is_some() {
            // The only failure is a span that no exporter knows.
            let _ = span.set_parent(self.context());
        }
    }

    pub(crate) fn write(&self, headers: &mut Vec<(Cow<'static, str>, HeaderValue)>) {
        for (name, text) in [
            (TRACEPARENT, &self.traceparent),
            (TRACESTATE, &self.tracestate),
        ] {
            if let Some(text) = text {
                headers.push((name.into(), text.as_str().into()));
            }
        }
    }
}

/// `version-trace id-span id-flags`, lower-case hex. Versions after 00 may carry more behind the flags.
fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = text.split('-');
    let mut field = |chars: usize| {
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let part = parts.next()?;
        (part.len() == chars && part.bytes().all(lower_hex)).then_some(part)
    };
    let version = field(2)?;
    let trace_id = TraceId::from_hex(field(32)?).ok()?;
    let span_id = SpanId::from_hex(field(16)?).ok()?;
    let flags = u8::from_str_radix(field(2)?, 16).ok()?;
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let valid = trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    valid.then_some((trace_id, span_id, TraceFlags::new(flags)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_survives_as_text_and_as_types() {
        let trace = Trace::new(Some(PARENT), Some("a=1,b=2"));
        assert_eq!(trace.traceparent(), Some(PARENT));
        assert_eq!(trace.tracestate(), Some("a=1,b=2"));
        let context = trace.context();
        let span = context.span();
        let span = span.span_context();
        assert_eq!(
            span.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(span.span_id().to_string(), "b7ad6b7169203331");
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(span.trace_state().get("b"), Some("2"));
    }

    #[test]
    fn what_is_not_well_formed_is_dropped() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(
                Trace::new(Some(bad), Some("a=1")),
                Trace::default(),
                "{bad}"
            );
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(Trace::new(Some(later), None).traceparent().is_some());
        let long = format!("a={}", "x".repeat(600));
        let trace = Trace::new(Some(PARENT), Some(&long));
        assert_eq!(
            (trace.traceparent(), trace.tracestate()),
            (Some(PARENT), None)
        );
    }

    #[test]
    fn without_an_exporter_there_is_no_current_context() {
        assert_eq!(Trace::current(), Trace::default());
        let kept = Trace::new(Some(PARENT), None);
        assert_eq!(Trace::current().or(kept.clone()), kept);
    }
}
