-- One row per metric data point.
CREATE TABLE metrics (
    name VARCHAR,
    description VARCHAR,
    unit VARCHAR,
    metadata VARCHAR,
    type VARCHAR,  -- gauge, sum, histogram, exponential_histogram, summary; one row a data point
    aggregation_temporality INTEGER,  -- 1 delta, 2 cumulative
    is_monotonic BOOLEAN,
    start_time_unix_nano BIGINT,
    time_unix_nano BIGINT,
    flags UINTEGER,  -- bit 0: no recorded value
    attributes VARCHAR,
    value_int BIGINT,  -- exactly one of value_int and value_double for gauge and sum
    value_double DOUBLE,
    count UBIGINT,
    sum DOUBLE,
    min DOUBLE,
    max DOUBLE,
    bucket_counts UBIGINT[],
    explicit_bounds DOUBLE[],
    scale INTEGER,
    zero_count UBIGINT,
    zero_threshold DOUBLE,
    positive_offset INTEGER,
    positive_bucket_counts UBIGINT[],
    negative_offset INTEGER,
    negative_bucket_counts UBIGINT[],
    quantiles DOUBLE[],
    quantile_values DOUBLE[],
    exemplars VARCHAR,  -- JSON array or null
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
    content_hash UBIGINT,  -- BLAKE2b-64 of resource, scope, name, type, attributes and times
    collector VARCHAR,
    sequence BIGINT,
    recorded_at BIGINT
);
