//! The columns of an attempt, which stand on `deliveries` (the last one) and on `attempts` alike.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use domain::attempt::Attempt;

/// The values of one column as `unnest` takes them. Nulls at the end are left out, since `unnest` fills up what is
/// shorter than the rest: most columns of most batches are all null, and then cost nothing.
#[derive(Debug)]
pub(super) struct Column<T> {
    values: Vec<Option<T>>,
    rows: usize,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            rows: 0,
        }
    }
}

impl<T> Column<T> {
    pub fn push(&mut self, value: Option<T>) {
        if value.is_some() {
            self.values.resize_with(self.rows, || None);
            self.values.push(value);
        }
        self.rows += 1;
    }

    pub fn into_values(self) -> Vec<Option<T>> {
        self.values
    }
}

impl<T> FromIterator<Option<T>> for Column<T> {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(values: I) -> Self {
        let mut column = Self::default();
        values.into_iter().for_each(|value| column.push(value));
        column
    }
}

/// Attempts turned into one array a column. An attempt that has not ended is a row of nulls.
#[derive(Default)]
pub(super) struct AttemptColumns<'a> {
    pub started_at: Column<DateTime<Utc>>,
    pub sent_version: Column<i32>,
    pub response_code: Column<i32>,
    pub error_kind: Column<&'static str>,
    pub error: Column<Cow<'a, str>>,
    pub response_headers: Column<&'a [u8]>,
    pub response_body: Column<&'a [u8]>,
    pub dns_us: Column<i64>,
    pub connect_us: Column<i64>,
    pub tls_us: Column<i64>,
    pub first_byte_us: Column<i64>,
    pub total_us: Column<i64>,
    pub reused_connection: Column<bool>,
}

impl<'a> AttemptColumns<'a> {
    pub fn push(&mut self, attempt: Option<&'a Attempt>, sent_version: i32) {
        let response = attempt.and_then(|a| a.response.as_ref());
        let failure = attempt.and_then(Attempt::failure);
        let timings = attempt.map(|a| a.timings);
        self.started_at.push(attempt.map(|a| a.started_at));
        self.sent_version.push(attempt.map(|_| sent_version));
        self.response_code
            .push(response.map(|r| i32::from(r.status)));
        self.error_kind.push(failure.map(|f| f.kind.as_str()));
        self.error.push(failure.map(|f| without_nul(&f.message)));
        self.response_headers
            .push(response.map(|r| r.headers.as_ref()));
        self.response_body.push(response.map(|r| r.body.as_ref()));
        self.dns_us.push(timings.and_then(|t| t.dns).map(micros));
        self.connect_us
            .push(timings.and_then(|t| t.connect).map(micros));
        self.tls_us.push(timings.and_then(|t| t.tls).map(micros));
        self.first_byte_us
            .push(timings.and_then(|t| t.first_byte).map(micros));
        self.total_us.push(timings.map(|t| micros(t.total)));
        self.reused_connection
            .push(timings.map(|t| t.reused_connection));
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// One NUL in a text would fail the whole batch.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', ""))
    } else {
        Cow::Borrowed(text)
    }
}

/// Binds all attempt columns of a statement, in the order of [`AttemptColumns`].
macro_rules! bind_attempts {
    ($query:expr, $columns:expr) => {
        $query
            .bind::<Array<Nullable<Timestamptz>>, _>($columns.started_at.into_values())
            .bind::<Array<Nullable<Integer>>, _>($columns.sent_version.into_values())
            .bind::<Array<Nullable<Integer>>, _>($columns.response_code.into_values())
            .bind::<Array<Nullable<Text>>, _>($columns.error_kind.into_values())
            .bind::<Array<Nullable<Text>>, _>($columns.error.into_values())
            .bind::<Array<Nullable<Binary>>, _>($columns.response_headers.into_values())
            .bind::<Array<Nullable<Binary>>, _>($columns.response_body.into_values())
            .bind::<Array<Nullable<BigInt>>, _>($columns.dns_us.into_values())
            .bind::<Array<Nullable<BigInt>>, _>($columns.connect_us.into_values())
            .bind::<Array<Nullable<BigInt>>, _>($columns.tls_us.into_values())
            .bind::<Array<Nullable<BigInt>>, _>($columns.first_byte_us.into_values())
            .bind::<Array<Nullable<BigInt>>, _>($columns.total_us.into_values())
            .bind::<Array<Nullable<Bool>>, _>($columns.reused_connection.into_values())
    };
}
pub(super) use bind_attempts;

/// Their names, in the same order.
macro_rules! attempt_columns {
    () => {
        "started_at, sent_version, response_code, error_kind, error, response_headers, response_body, \
         dns_us, connect_us, tls_us, first_byte_us, total_us, reused_connection"
    };
}
pub(super) use attempt_columns;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_at_the_end_of_a_column_are_left_out_and_others_keep_their_places() {
        let nulls: Column<i32> = [None, None].into_iter().collect();
        assert!(nulls.into_values().is_empty());
        let column: Column<i32> = [None, Some(1), None, Some(2), None].into_iter().collect();
        assert_eq!(column.into_values(), [None, Some(1), None, Some(2)]);
    }
}
