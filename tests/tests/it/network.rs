//! Nothing of ours reaches a private network: the address is checked when it is connected to, whatever the name server
//! said when the webhook was written.

use std::net::SocketAddr;

use tests::dns::NameServer;
use tests::{Receiver, Stack, eventually};

/// The loopback addresses stand for the public internet (127.0.0.1) and for a private network (127.0.0.2).
async fn stack_with(names: &NameServer) -> Stack {
    Stack::builder()
        .set("network.allowed_networks", "127.0.0.1/32")
        .set("network.name_servers", &names.address().to_string())
        .set("retry_policy.schedule_s", "1,1,1,1")
        .start()
        .await
}

#[tokio::test]
async fn a_name_that_turns_to_a_private_address_is_not_connected_to() {
    let names = NameServer::start().await;
    let private = Receiver::start_at(SocketAddr::from(([127, 0, 0, 2], 0))).await;
    let public = SocketAddr::from(([127, 0, 0, 1], private.address().port()));
    let public = Receiver::start_at(public).await;
    names.set("hook.example", &["127.0.0.1"]);
    let stack = stack_with(&names).await;
    let partner = stack.partner().await;
    let url = format!("http://hook.example:{}/", public.address().port());
    partner.create_webhook(&url, &["listing.updated"]).await;
    let id = stack.publish(&partner, "listing.updated", "{}").await;
    let request = public.wait_for_delivery(&id).await;
    let host = format!("hook.example:{}", public.address().port());
    assert_eq!(request.header("Host"), Some(host.as_str()));

    // The kept connection leads to the address that was checked; a new one must be checked anew. One private address
    // among public ones is enough to refuse.
    drop(public);
    names.set("hook.example", &["127.0.0.2"]);
    let id = stack.publish(&partner, "listing.updated", "{}").await;
    let sql = stack.database.sql().await;
    let kind: String = eventually("the attempt has failed", async || {
        let query =
            "SELECT a.error_kind FROM attempts AS a JOIN deliveries AS d ON d.id = a.delivery_id
                     WHERE d.event_id = $1 ORDER BY a.number LIMIT 1";
        sql.rows(query, &[&id]).await.first().map(|row| row.get(0))
    })
    .await;
    assert_eq!(kind, "forbidden_address");
    // Once the name is as it was, the retry gets through, and nothing ever went to the other address.
    let back = SocketAddr::from(([127, 0, 0, 1], private.address().port()));
    let back = Receiver::start_at(back).await;
    names.set("hook.example", &["127.0.0.1"]);
    back.wait_for_delivery(&id).await;
    stack.until_delivery_is(&id, "delivered").await;
    assert!(private.requests().is_empty(), "{:#?}", private.requests());
    stack.finish().await;
}
