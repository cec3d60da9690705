//! Logs of services that run in this process. They go to the test's captured output, which is shown when it fails;
//! `TEST_LOG` sets the filter (`info,dispatcher=debug`).

use std::sync::Once;

use tracing_subscriber::EnvFilter;

const FILTER: &str = "info,lapin=off,hyper=warn,reqwest=warn,h2=warn,actix_server=warn,hickory_proto=warn,\
                      hickory_resolver=warn,hickory_net=warn,tokio_postgres=warn";

/// Once for the process; further calls change nothing.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let filter = std::env::var("TEST_LOG").unwrap_or_else(|_| FILTER.to_owned());
        let _already = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_thread_names(true)
            .with_test_writer()
            .try_init();
    });
}
