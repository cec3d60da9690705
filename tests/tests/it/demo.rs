//! `make demo`, with this build and this test's stack instead of the release build and a stack of its own.

use std::process::Command;

use tests::{Process, Stack, process};

#[tokio::test]
async fn the_demo_shows_every_delivery_verified_and_one_retried() {
    let stack = Stack::start().await;
    let program = process::program("demo");
    let programs = program.parent().unwrap().display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(&program);
    command
        .env("PATH", format!("{programs}:{path}"))
        .env("VELLOCITY_API_URL", stack.api_origin())
        .env("VELLOCITY_AMQP_URL", stack.vhost.url())
        .env("VELLOCITY_DATABASE_URL", stack.database.url());
    assert!(process::program("hookctl").exists());
    let mut demo = Process::spawn("demo", command);
    let status = demo.exited().await;
    let output = demo.output();
    assert!(status.success(), "{output}");
    let verified = output.matches("signature verified (").count();
    assert_eq!(verified, 10, "{output}");
    for text in [
        "answered 503",
        "with the same id and a fresh signature",
        "All 8 events",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
    assert!(
        !output.contains('\u{1b}'),
        "colours are for terminals: {output}"
    );
    stack.finish().await;
}
