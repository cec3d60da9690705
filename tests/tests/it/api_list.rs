//! `GET /partners/webhooks` and `GET /partners/webhooks/events`.

use serde_json::{Value, json};
use tests::{Partner, Response};

use super::api_fixture::{URL, api, faults};

fn ids(page: &Response) -> Vec<i64> {
    let webhooks = page.body["data"].as_array().unwrap();
    webhooks
        .iter()
        .map(|webhook| webhook["id"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn webhooks_are_listed_newest_first_page_by_page_and_only_ones_own() {
    let stack = api().start().await;
    let (partner, other) = (stack.partner().await, stack.partner().await);
    let empty = partner.api.get(Partner::WEBHOOKS).await.expect(200);
    assert_eq!(
        empty.text,
        r#"{"data":[],"meta":{"total":0,"page":1,"per_page":20,"total_pages":1}}"#
    );

    let mut made = Vec::new();
    for _ in 0..23 {
        made.insert(
            0,
            partner.create_webhook(URL, &["listing.updated"]).await.id,
        );
    }
    other.create_webhook(URL, &["listing.updated"]).await;
    let first = partner.api.get(Partner::WEBHOOKS).await.expect(200);
    assert_eq!(ids(&first), made[..20]);
    assert_eq!(
        first.body["meta"],
        json!({"total": 23, "page": 1, "per_page": 20, "total_pages": 2})
    );
    let second = partner
        .api
        .get("/partners/webhooks?page=2")
        .await
        .expect(200);
    assert_eq!(ids(&second), made[20..]);
    let small = partner
        .api
        .get("/partners/webhooks?per_page=5&page=5")
        .await
        .expect(200);
    assert_eq!(ids(&small), made[20..]);
    assert_eq!(
        small.body["meta"],
        json!({"total": 23, "page": 5, "per_page": 5, "total_pages": 5})
    );
    let beyond = partner
        .api
        .get("/partners/webhooks?page=4000000000")
        .await
        .expect(200);
    assert_eq!(ids(&beyond), [0; 0]);

    let path = Partner::webhook_path(made[0]);
    partner.api.delete(&path).await.expect(204);
    let all = partner
        .api
        .get("/partners/webhooks?per_page=100")
        .await
        .expect(200);
    assert_eq!(ids(&all), made[1..]);
    stack.finish().await;
}

#[tokio::test]
async fn a_listed_webhook_has_exactly_the_attributes_of_the_page() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let body = json!({
        "url": URL, "events": ["listing.updated", "cosell.created"], "description": "Production webhook"
    });
    let webhook = partner.create_webhook_from(&body).await;
    let sql = stack.database.sql().await;
    sql.execute(
        "UPDATE webhooks SET created_at = '2026-01-15T10:00:00.9Z', updated_at = '2026-01-16T10:00:00Z';
         UPDATE webhook_health SET last_triggered_at = '2026-02-25T14:30:00.7Z', last_response_code = 503,
             failure_count = 4",
    )
    .await;
    let public = format!(
        concat!(
            r#"{{"type":"webhook","id":{},"attributes":{{"url":"{}","events":["listing.updated","cosell.created"],"#,
            r#""description":"Production webhook","active":true,"last_triggered_at":"2026-02-25T14:30:00Z","#,
            r#""last_response_code":503,"failure_count":4,"created_at":"2026-01-15T10:00:00Z""#
        ),
        webhook.id, URL
    );
    let list = partner.api.get(Partner::WEBHOOKS).await.expect(200);
    assert_eq!(
        list.text,
        format!(
            r#"{{"data":[{public}}}}}],"meta":{{"total":1,"page":1,"per_page":20,"total_pages":1}}}}"#
        )
    );
    let path = Partner::webhook_path(webhook.id);
    let one = partner.api.get(&path).await.expect(200);
    assert_eq!(
        one.text,
        format!(
            r#"{{"data":{public},"disabled_reason":null,"disabled_at":null,"updated_at":"2026-01-16T10:00:00Z"}}}}}}"#
        )
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_page_that_can_not_be_is_refused() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    for (query, field) in [
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("per_page=abc", "per_page"),
        ("per_page=", "per_page"),
        ("per_page=-5", "per_page"),
        ("per_page=1&per_page=2", "per_page"),
        ("page=0", "page"),
        ("page=x", "page"),
        ("page=99999999999999999999", "page"),
    ] {
        let path = format!("/partners/webhooks?{query}");
        let told = faults(partner.api.get(&path).await, field);
        assert_eq!(told.len(), 1, "{query}: {told:?}");
    }
    stack.finish().await;
}

/// As the public page prints it.
const CATALOGUE: &str = r#"
{
  "data": [
    {
      "name": "listing.created",
      "description": "Triggered when a new marketplace listing is created",
      "payload_example": {
        "event": "listing.created",
        "listing_id": 123,
        "provider": "aws",
        "status": "pending"
      }
    },
    {
      "name": "listing.updated",
      "description": "Triggered when a listing is updated",
      "payload_example": {
        "event": "listing.updated",
        "listing_id": 123,
        "changes": ["status", "compliance_score"]
      }
    },
    {
      "name": "listing.published",
      "description": "Triggered when a listing is published to the marketplace",
      "payload_example": {
        "event": "listing.published",
        "listing_id": 123,
        "published_at": "2026-02-26T12:00:00Z"
      }
    },
    {
      "name": "listing.failed",
      "description": "Triggered when listing processing fails",
      "payload_example": {
        "event": "listing.failed",
        "listing_id": 123,
        "error": "Processing timeout"
      }
    },
    {
      "name": "cosell.created",
      "description": "Triggered when a new co-sell opportunity is created"
    },
    {
      "name": "cosell.updated",
      "description": "Triggered when a co-sell opportunity is updated"
    },
    {
      "name": "cosell.completed",
      "description": "Triggered when a co-sell opportunity is completed"
    },
    {
      "name": "content.generated",
      "description": "Triggered when AI content is generated"
    }
  ]
}"#;

#[tokio::test]
async fn the_catalogue_is_the_pages_with_its_members_in_their_order() {
    let stack = api().start().await;
    let partner = stack.partner().await;
    let catalogue = partner
        .api
        .get("/partners/webhooks/events")
        .await
        .expect(200);
    assert_eq!(catalogue.text, without_layout(CATALOGUE));
    let keyless = partner.api.with_key(None);
    keyless.get("/partners/webhooks/events").await.expect(401);
    stack.finish().await;
}

/// The same JSON without white space between its parts.
fn without_layout(json: &str) -> String {
    let _valid: Value = serde_json::from_str(json).unwrap();
    let mut in_text = false;
    json.chars()
        .filter(|c| {
            in_text ^= *c == '"';
            in_text || !c.is_whitespace()
        })
        .collect()
}
