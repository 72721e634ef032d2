-- One row per log record.
CREATE TABLE logs (
    time_unix_nano BIGINT,  -- 0 where the sender gave none
    observed_time_unix_nano BIGINT,
    severity_number INTEGER,
    severity_text VARCHAR,
    event_name VARCHAR,
    body VARCHAR,  -- JSON of the body: a string literal for text, an object for a map; null when empty
    trace_id VARCHAR,
    span_id VARCHAR,
    flags UINTEGER,
    attributes VARCHAR,  -- JSON object, lossless
    dropped_attributes_count UINTEGER,
    service_name VARCHAR,
    resource VARCHAR,
    resource_dropped_attributes_count UINTEGER,
    resource_entity_refs VARCHAR,
    resource_schema_url VARCHAR,
    scope_name VARCHAR,
    scope_version VARCHAR,
    scope_attributes VARCHAR,
    scope_dropped_attributes_count UINTEGER,
    scope_schema_url VARCHAR,
    user_id VARCHAR,
    session_id VARCHAR,
    exception_type VARCHAR,  -- promoted attributes
    gen_ai_conversation_id VARCHAR,
    content_hash UBIGINT,  -- BLAKE2b-64 of resource, scope, record, and its ordinal among equals in its request
    collector VARCHAR,
    sequence BIGINT,  -- number of the commit, per collector
    recorded_at BIGINT
);
