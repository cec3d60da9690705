//! Statements in SQL that Postgres parses once a connection.
//!
//! diesel never keeps a [`diesel::sql_query`] prepared, since its text may be made up anew each time. Those of the
//! event's way are always the same: parsed and planned for each batch they cost more than they do. Kept, they are found by
//! their text.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::Untyped;

/// A statement whose text is always the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prepared<Q>(Q);

pub(crate) trait Prepare: Sized {
    /// For statements whose text is one of few: each text is kept for as long as its connection.
    fn prepared(self) -> Prepared<Self> {
        Prepared(self)
    }
}

impl<Q: QueryFragment<Pg>> Prepare for Q {}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Prepared<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _backend: &Pg) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

/// Rows are read by the names of their columns.
impl<Q> Query for Prepared<Q> {
    type SqlType = Untyped;
}
