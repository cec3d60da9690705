//! That what diesel believes of the tables is what the migrations make.

use std::collections::BTreeMap;

use tests::Database;

use super::deploy_repository as repository;

/// Columns with their types, in order, by table.
type Tables = BTreeMap<String, Vec<(String, String)>>;

#[tokio::test]
async fn the_schema_in_code_is_the_one_that_the_migrations_make() {
    let database = Database::create().await;
    let made = of_database(&database).await;
    let believed = of_code(&repository::read("crates/store/src/schema.rs"));
    assert!(believed.len() > 5, "{believed:#?}");
    for (table, columns) in &believed {
        assert_eq!(made.get(table), Some(columns), "{table}");
    }
}

#[tokio::test]
async fn every_table_is_in_the_schema_or_written_as_sql_on_purpose() {
    let database = Database::create().await;
    let believed = of_code(&repository::read("crates/store/src/schema.rs"));
    let as_sql = ["deliveries"];
    for table in of_database(&database).await.keys() {
        let known = believed.contains_key(table) || as_sql.contains(&table.as_str());
        assert!(known, "{table} is missing in schema.rs");
    }
}

/// Without the partitions, and without diesel's own table.
async fn of_database(database: &Database) -> Tables {
    let sql = database.sql().await;
    let rows = sql
        .rows(
            "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), NOT a.attnotnull
             FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                 AND c.relname <> '__diesel_schema_migrations' AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY c.relname, a.attnum",
            &[],
        )
        .await;
    let mut tables = Tables::new();
    for row in rows {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let (sql_type, nullable): (String, bool) = (row.get(2), row.get(3));
        let mut name = diesel_type(&sql_type);
        if nullable {
            name = format!("Nullable<{name}>");
        }
        tables.entry(table).or_default().push((column, name));
    }
    tables
}

fn diesel_type(sql_type: &str) -> String {
    if let Some(element) = sql_type.strip_suffix("[]") {
        return format!("Array<{}>", diesel_type(element));
    }
    let name = match sql_type {
        "bigint" => "BigInt",
        "boolean" => "Bool",
        "bytea" => "Binary",
        "date" => "Date",
        "double precision" => "Double",
        "integer" => "Integer",
        "json" => "Json",
        "jsonb" => "Jsonb",
        "text" => "Text",
        "timestamp with time zone" => "Timestamptz",
        "uuid" => "Uuid",
        other => panic!("say here which type diesel has for {other}"),
    };
    name.to_owned()
}

/// The tables of `table!` blocks: `name (keys) {`, then `column -> Type,` lines.
fn of_code(code: &str) -> Tables {
    let mut tables = Tables::new();
    let mut table = None;
    for line in code.lines().map(str::trim) {
        if let Some((column, kind)) = line.split_once(" -> ") {
            let name: &String = table.as_ref().expect("a column within a table");
            let kind = kind.trim_end_matches(',').to_owned();
            tables
                .entry(name.clone())
                .or_default()
                .push((column.to_owned(), kind));
        } else if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            table = Some(name.to_owned());
        }
    }
    tables
}
