//! Every test that needs PostgreSQL or RabbitMQ, and those of the repository itself: one program, one module a subject.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "these are tests, their functions beside the test functions too"
)]

mod it {
    mod api_addresses;
    mod api_change;
    mod api_create;
    mod api_fixture;
    mod api_form;
    mod api_idempotency;
    mod api_keys;
    mod api_list;
    mod api_outbox;
    mod api_plan;
    mod api_rate_limit;
    mod api_service;
    mod api_test_call;
    mod broker_consume;
    mod broker_fixture;
    mod broker_link;
    mod broker_publish;
    mod broker_strangers;
    mod broker_topology;
    mod chaos;
    mod config_files;
    mod config_keys;
    mod config_service;
    mod config_text;
    mod crash;
    #[cfg(feature = "fail-points")]
    mod crash_due;
    #[cfg(feature = "fail-points")]
    mod crash_event;
    #[cfg(feature = "fail-points")]
    mod crash_fixture;
    #[cfg(feature = "fail-points")]
    mod crash_locked;
    #[cfg(feature = "fail-points")]
    mod crash_midnight;
    #[cfg(feature = "fail-points")]
    mod crash_outbox;
    #[cfg(feature = "fail-points")]
    mod crash_retry;
    #[cfg(feature = "fail-points")]
    mod crash_rivals;
    #[cfg(feature = "fail-points")]
    mod crash_webhook;
    mod delivery;
    mod demo;
    mod deploy_compose;
    mod deploy_dockerfile;
    mod deploy_rabbitmq;
    mod deploy_repository;
    mod deploy_stack;
    mod deploy_stages;
    mod dispatcher_attempts;
    mod dispatcher_claims;
    mod dispatcher_consume;
    mod dispatcher_due;
    mod dispatcher_isolation;
    mod dispatcher_matching;
    mod dispatcher_record;
    mod duplicates;
    mod harness;
    mod health;
    mod hell_bytes;
    mod hell_connections;
    mod hell_fixture;
    mod hell_http2;
    mod hell_names;
    mod hell_redirects;
    mod hell_retry_after;
    mod hell_secure;
    mod hell_silence;
    mod hell_slowdown;
    mod hell_statuses;
    mod hell_tls;
    mod hookctl_dead_letters;
    mod hookctl_line;
    mod hookctl_partners;
    mod hookctl_publish;
    mod journey;
    mod load;
    mod network;
    mod outage;
    mod rejection;
    mod repository_crates;
    mod repository_layout;
    mod repository_schema;
    mod retry_dead_letters;
    mod retry_journey;
    mod retry_outage;
    mod retry_place;
    mod retry_sweep;
    mod retry_tables;
    mod shutdown;
    mod snippets;
    mod standstill;
    mod store_cancel;
    mod store_claim;
    mod store_disable;
    mod store_fixture;
    mod store_health;
    mod store_health_orders;
    mod store_partition;
    mod store_partner;
    mod store_record_attempts;
    mod store_record_data;
    mod store_record_events;
    mod store_start;
    mod store_sweep;
    mod store_tables;
    mod store_webhook;
    mod telemetry;
}
