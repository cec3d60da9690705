//! Partners and webhooks, any number of them, written in one go: plans and limits of the API are not what is measured.

use domain::id::PartnerId;
use domain::secret::Secret;
use store::keyring::Keyring;
use tests::database::Sql;

/// The type of all events of the benchmark.
pub const EVENT_TYPE: &str = "listing.updated";
/// The partner of scenarios that have only one.
pub const ONLY_PARTNER: i64 = 1;
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ROWS_PER_STATEMENT: usize = 20_000;

/// A webhook of a partner.
#[derive(Clone, Debug)]
pub struct Subscriber {
    pub partner: i64,
    pub url: String,
}

/// Writes them. Partners are those that the webhooks name.
pub async fn create(sql: &Sql, keyring: &Keyring, subscribers: &[Subscriber]) {
    let secret = Secret::parse(SECRET.to_owned()).unwrap();
    for rows in subscribers.chunks(ROWS_PER_STATEMENT) {
        let partners: Vec<i64> = rows.iter().map(|row| row.partner).collect();
        let urls: Vec<&str> = rows.iter().map(|row| row.url.as_str()).collect();
        let sealed: Vec<_> = partners
            .iter()
            .map(|&partner| keyring.seal_secret(PartnerId(partner), &secret).unwrap())
            .collect();
        let secrets: Vec<&[u8]> = sealed
            .iter()
            .map(|sealed| sealed.bytes.as_slice())
            .collect();
        let keys: Vec<&str> = sealed.iter().map(|sealed| sealed.key_id.as_str()).collect();
        sql.run(
            "INSERT INTO partners (id, name, plan) SELECT DISTINCT id, 'Load', 'Enterprise' FROM unnest($1::bigint[]) AS id
             ON CONFLICT DO NOTHING",
            &[&partners],
        )
        .await;
        sql.run(
            "WITH made AS (
                 INSERT INTO webhooks (partner_id, url, events, active, secret, sealing_key_id)
                 SELECT partner, url, ARRAY['listing.updated'], true, secret, key
                 FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[]) AS i(partner, url, secret, key)
                 RETURNING id)
             INSERT INTO webhook_health (webhook_id) SELECT id FROM made",
            &[&partners, &urls, &secrets, &keys],
        )
        .await;
    }
}
