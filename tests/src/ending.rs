//! Work that has to be awaited in a `Drop`, which can't await.

use std::thread;
use std::time::Duration;

/// What is not undone by then is left to the next run.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a future to its end on a thread and a runtime of its own, whatever the caller's runtime is doing.
pub fn run<F>(make: impl FnOnce() -> F + Send)
where
    F: Future<Output = ()>,
{
    thread::scope(|scope| {
        // A panic must not become a second one while a test is being torn down.
        let _ended = scope
            .spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                if let Ok(runtime) = runtime {
                    let _in_time =
                        runtime.block_on(async { tokio::time::timeout(LIMIT, make()).await });
                }
            })
            .join();
    });
}
