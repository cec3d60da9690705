//! The tables, column for column as the migrations make them. A test holds them against a migrated database.
//!
//! `deliveries` is left out: diesel's support for tables of more than 32 columns multiplies its compile time, and all
//! statements on that table are batches written as SQL.

use diesel::{allow_tables_to_appear_in_same_query, table};

table! {
    partners (id) {
        id -> BigInt,
        name -> Text,
        plan -> Text,
        suspended_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        resumed_at -> Nullable<Timestamptz>,
    }
}

table! {
    api_keys (id) {
        id -> BigInt,
        partner_id -> BigInt,
        prefix -> Text,
        hash -> Binary,
        scopes -> Array<Text>,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
    }
}

table! {
    rate_limits (subject) {
        subject -> Text,
        window_started_at -> Timestamptz,
        requests -> Integer,
    }
}

table! {
    idempotency_keys (partner_id, key) {
        partner_id -> BigInt,
        key -> Text,
        request_hash -> Binary,
        status -> Integer,
        answer -> Binary,
        sealing_key_id -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    event_types (name) {
        name -> Text,
        position -> Integer,
        description -> Text,
        payload_example -> Nullable<Json>,
        schema -> Json,
        created_at -> Timestamptz,
    }
}

table! {
    webhooks (id) {
        id -> BigInt,
        partner_id -> BigInt,
        url -> Text,
        events -> Array<Text>,
        description -> Nullable<Text>,
        active -> Bool,
        version -> Integer,
        deactivated_version -> Integer,
        disabled_reason -> Nullable<Text>,
        disabled_at -> Nullable<Timestamptz>,
        secret -> Nullable<Binary>,
        sealing_key_id -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

table! {
    webhook_versions (webhook_id, version) {
        webhook_id -> BigInt,
        version -> Integer,
        partner_id -> BigInt,
        change -> Text,
        before -> Nullable<Jsonb>,
        after -> Nullable<Jsonb>,
        actor -> Text,
        at -> Timestamptz,
    }
}

table! {
    webhook_health (webhook_id) {
        webhook_id -> BigInt,
        since_version -> Integer,
        last_triggered_at -> Nullable<Timestamptz>,
        last_response_code -> Nullable<Integer>,
        last_success_at -> Nullable<Timestamptz>,
        failure_count -> Integer,
        failing_since -> Nullable<Timestamptz>,
    }
}

table! {
    webhook_breakers (webhook_id, instance) {
        webhook_id -> BigInt,
        instance -> Text,
        state -> Text,
        reason -> Text,
        until -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

table! {
    outbox (id) {
        id -> BigInt,
        routing_key -> Text,
        payload -> Jsonb,
        created_at -> Timestamptz,
        leased_until -> Nullable<Timestamptz>,
    }
}

table! {
    claims (partner_id, event_id) {
        partner_id -> BigInt,
        event_id -> Text,
        event_key -> Uuid,
        content_hash -> Binary,
        claimed_at -> Timestamptz,
        recorded_at -> Nullable<Timestamptz>,
    }
}

table! {
    events (key) {
        key -> Uuid,
        partner_id -> BigInt,
        event_id -> Text,
        event_type -> Text,
        occurred_at -> Timestamptz,
        body -> Binary,
        app_id -> Nullable<Text>,
        recorded_at -> Timestamptz,
    }
}

table! {
    attempts (delivery_id, number) {
        delivery_id -> Uuid,
        number -> Integer,
        started_at -> Timestamptz,
        sent_version -> Integer,
        response_code -> Nullable<Integer>,
        error_kind -> Nullable<Text>,
        error -> Nullable<Text>,
        response_headers -> Nullable<Binary>,
        response_body -> Nullable<Binary>,
        dns_us -> Nullable<BigInt>,
        connect_us -> Nullable<BigInt>,
        tls_us -> Nullable<BigInt>,
        first_byte_us -> Nullable<BigInt>,
        total_us -> BigInt,
        reused_connection -> Bool,
    }
}

table! {
    dead_letters (id) {
        id -> BigInt,
        line -> Text,
        message_id -> Nullable<Text>,
        code -> Text,
        reason -> Text,
        exchange -> Text,
        routing_key -> Text,
        event_id -> Nullable<Text>,
        event_type -> Nullable<Text>,
        partner_id -> Nullable<Text>,
        app_id -> Nullable<Text>,
        content_type -> Nullable<Text>,
        traceparent -> Nullable<Text>,
        tracestate -> Nullable<Text>,
        body -> Binary,
        at -> Timestamptz,
    }
}

table! {
    service_instances (instance) {
        instance -> Text,
        service -> Text,
        version -> Text,
        started_at -> Timestamptz,
        heartbeat_at -> Timestamptz,
        ready -> Bool,
        detail -> Text,
    }
}

allow_tables_to_appear_in_same_query!(
    partners,
    api_keys,
    rate_limits,
    idempotency_keys,
    event_types,
    webhooks,
    webhook_versions,
    webhook_health,
    webhook_breakers,
    outbox,
    claims,
    events,
    attempts,
    dead_letters,
    service_instances,
);
