//! The catalogue of event types.

use serde_json::{Value, json};
use store::event_type::{self, CatalogueEntry};

use crate::answer::{Answer, Table};
use crate::arguments::EventTypes;
use crate::environment::Environment;
use crate::error::Error;

pub async fn run(command: EventTypes, environment: &Environment) -> Result<Answer, Error> {
    let EventTypes::List = command;
    let mut conn = environment.postgres().await?;
    let entries = event_type::list(&mut conn).await?;
    let mut table = Table::new(["name", "description"]);
    for entry in &entries {
        table.row([entry.name.to_string(), entry.description.clone()]);
    }
    let document = Value::Array(entries.iter().map(document).collect());
    Ok(Answer::new(document, table.render_or("no event types")))
}

fn document(entry: &CatalogueEntry) -> Value {
    json!({
        "name": entry.name,
        "description": entry.description,
        "payload_example": entry.payload_example,
        "schema": entry.schema,
    })
}
