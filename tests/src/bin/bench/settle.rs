//! Before what is measured begins: what was written before it reaches its files now, not in the middle of it.

use std::path::Path;
use std::process::Command;

use tests::database::Sql;
use tests::servers;

/// Ends the log that all quorum queues share. Whatever it holds, such as the declarations of two dozen queues, goes into
/// a file for each queue then; in the middle of a run that keeps the disk busy for a quarter of a second.
const END_LOG: &str = "ra_log_wal:force_roll_over(ra_log_wal).";

/// Has PostgreSQL and RabbitMQ, whose files lie under `folder`, write what they owe. RabbitMQ goes on with it for a
/// moment, which falls into the warm-up where latencies count. A flood has none, and fills such a log by itself.
pub async fn settle(sql: &Sql, folder: &Path) {
    sql.execute("CHECKPOINT").await;
    let mut rabbitmqctl = Command::new(servers::script("rabbitmq"));
    rabbitmqctl.arg("ctl").arg(folder.join("rabbitmq"));
    let output = rabbitmqctl.args(["eval", END_LOG]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{END_LOG}: {told}");
}
