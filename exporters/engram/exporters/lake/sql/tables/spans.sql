-- One row per span, recognised by a rule or not.
CREATE TABLE spans (
    trace_id VARCHAR,  -- 32 lower-case hex digits
    span_id VARCHAR,  -- 16 lower-case hex digits; unique only within a trace
    parent_span_id VARCHAR,  -- null for a root
    trace_state VARCHAR,
    flags UINTEGER,  -- W3C trace flags and the remote bits, as sent
    name VARCHAR,
    kind INTEGER,  -- 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer
    start_time_unix_nano BIGINT,  -- integer nanoseconds: exact, and cheap to compare; views have TIMESTAMP
    end_time_unix_nano BIGINT,
    status_code INTEGER,  -- 0 unset, 1 ok, 2 error
    status_message VARCHAR,
    attributes VARCHAR,  -- JSON object; every type and duplicate keys kept (see otlp/values.py)
    dropped_attributes_count UINTEGER,
    events VARCHAR,  -- JSON array or null
    dropped_events_count UINTEGER,
    links VARCHAR,  -- JSON array or null
    dropped_links_count UINTEGER,
    service_name VARCHAR,  -- resource attribute service.name
    resource VARCHAR,  -- JSON object of the resource's attributes
    resource_dropped_attributes_count UINTEGER,
    resource_entity_refs VARCHAR,
    resource_schema_url VARCHAR,
    scope_name VARCHAR,
    scope_version VARCHAR,
    scope_attributes VARCHAR,
    scope_dropped_attributes_count UINTEGER,
    scope_schema_url VARCHAR,
    user_id VARCHAR,  -- promoted attributes: typed columns filter in 3 ms, a JSON bag in 160-400
    session_id VARCHAR,
    http_request_method VARCHAR,
    http_route VARCHAR,
    http_response_status_code INTEGER,
    server_address VARCHAR,
    error_type VARCHAR,
    db_system_name VARCHAR,
    gen_ai_operation_name VARCHAR,
    gen_ai_provider_name VARCHAR,
    gen_ai_request_model VARCHAR,
    gen_ai_conversation_id VARCHAR,
    content_hash UBIGINT,  -- BLAKE2b-64 of resource, scope and span as sent: a re-sent span has the same
    collector VARCHAR,  -- which collector wrote the row
    sequence BIGINT,  -- number of the commit, per collector: what readers follow
    recorded_at BIGINT  -- nanoseconds: when the commit was made
);
