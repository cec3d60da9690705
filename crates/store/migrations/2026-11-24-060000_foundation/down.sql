DROP TABLE service_instances, dead_letters, attempts, deliveries, events, claims, outbox, webhook_breakers,
    webhook_health, webhook_versions, webhooks, event_types, idempotency_keys, rate_limits, api_keys, partners;
DROP FUNCTION create_partitions, uuid_v7, uuid_v7_millis, uuid_v7_floor;
