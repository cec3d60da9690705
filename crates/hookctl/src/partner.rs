//! Partners: made with a first key, listed, given another plan, suspended and resumed.

use domain::api_key::ApiKey;
use domain::id::PartnerId;
use domain::plan::Plan;
use serde_json::{Value, json};
use store::api_key::{NewApiKey, Scope};
use store::partner::{self, Partner as Row};

use crate::answer::{Answer, Table};
use crate::arguments::Partner;
use crate::environment::Environment;
use crate::error::Error;
use crate::key;
use crate::shown;

/// Who the history of webhooks says it was.
const ACTOR: &str = "hookctl";
/// Partners read by one statement.
const PAGE: u32 = 1000;

pub async fn run(command: Partner, environment: &Environment) -> Result<Answer, Error> {
    match command {
        Partner::Create { name, plan } => create(&name, plan, environment).await,
        Partner::List => list(environment).await,
        Partner::SetPlan { id, plan } => {
            let mut conn = environment.postgres().await?;
            changed(id, partner::set_plan(&mut conn, PartnerId(id), plan).await?)
        }
        Partner::Suspend { id } => {
            let mut conn = environment.postgres().await?;
            changed(id, partner::suspend(&mut conn, PartnerId(id), ACTOR).await?)
        }
        Partner::Resume { id } => {
            let mut conn = environment.postgres().await?;
            changed(id, partner::resume(&mut conn, PartnerId(id), ACTOR).await?)
        }
    }
}

/// Both or neither: a partner without a key would be of no use.
async fn create(name: &str, plan: Plan, environment: &Environment) -> Result<Answer, Error> {
    let key = key::random()?;
    let mut transaction = environment.store()?.begin().await?;
    let partner = partner::create(&mut transaction, name, plan).await?;
    let new = NewApiKey {
        partner_id: partner.id,
        prefix: key.prefix(),
        hash: &key.hash(),
        scopes: &Scope::ALL,
        expires_in: None,
    };
    let stored = store::api_key::create(&mut transaction, &new).await?;
    transaction.commit().await?;
    let key_id = stored.map(|stored| stored.id);
    Ok(created(&partner, key_id, &key))
}

fn created(partner: &Row, key_id: Option<i64>, key: &ApiKey) -> Answer {
    let document = json!({
        "partner_id": partner.id,
        "name": partner.name,
        "plan": partner.plan.name(),
        "api_key": key.reveal(),
        "key_id": key_id,
    });
    let text = format!(
        "partner {} ({}, {})\nAPI key, shown only now: {}\n",
        partner.id,
        partner.name,
        partner.plan,
        key.reveal()
    );
    Answer::new(document, text)
}

async fn list(environment: &Environment) -> Result<Answer, Error> {
    let mut conn = environment.postgres().await?;
    let mut partners: Vec<Row> = Vec::new();
    loop {
        let after = partners.last().map_or(PartnerId(0), |last| last.id);
        let page = partner::list(&mut conn, after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        partners.extend(page);
    }
    let mut table = Table::new(["id", "name", "plan", "state", "since"]);
    for partner in &partners {
        table.row([
            partner.id.to_string(),
            partner.name.clone(),
            partner.plan.to_string(),
            state(partner).to_owned(),
            shown::ms(partner.suspended_at.unwrap_or(partner.created_at)),
        ]);
    }
    let document = Value::Array(partners.iter().map(document).collect());
    Ok(Answer::new(document, table.render_or("no partners")))
}

fn changed(id: i64, partner: Option<Row>) -> Result<Answer, Error> {
    let partner = partner.ok_or_else(|| Error::NotFound(format!("partner {id}")))?;
    let text = format!(
        "partner {} ({}): plan {}, {}\n",
        partner.id,
        partner.name,
        partner.plan,
        state(&partner)
    );
    Ok(Answer::new(document(&partner), text))
}

fn document(partner: &Row) -> Value {
    json!({
        "partner_id": partner.id,
        "name": partner.name,
        "plan": partner.plan.name(),
        "suspended": partner.suspended_at.is_some(),
        "suspended_at": partner.suspended_at.map(shown::ms),
        "created_at": shown::ms(partner.created_at),
    })
}

fn state(partner: &Row) -> &'static str {
    if partner.suspended_at.is_some() {
        "suspended"
    } else {
        "active"
    }
}
