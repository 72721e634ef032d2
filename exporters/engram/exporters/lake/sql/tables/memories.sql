-- One row per fact: rows of equal id are merged before they are committed, and by the sweep.
CREATE TABLE memories (
    id VARCHAR,  -- hash of type, scope and source key: the same fact has the same id
    type VARCHAR,  -- see engram.exporters.memories.MEMORY_TYPES; an app may mark any other
    time_unix_nano BIGINT,  -- when it happened
    end_time_unix_nano BIGINT,
    title VARCHAR,
    content VARCHAR,  -- readable text: what is searched
    importance FLOAT,  -- 0 to 1
    tags VARCHAR[],
    service_name VARCHAR,
    user_id VARCHAR,
    session_id VARCHAR,
    conversation_id VARCHAR,
    subject VARCHAR,
    fingerprint VARCHAR,
    outcome VARCHAR,
    duration_ns BIGINT,
    trace_id VARCHAR,
    span_id VARCHAR,
    attributes VARCHAR,  -- JSON object: the fields of its type
    index_as VARCHAR,  -- memory (an index row of its own), template (shares one), none
    sources UBIGINT[],  -- content_hash of every record it was made from; counts are derived from it
    source VARCHAR,
    trust VARCHAR,  -- from the authenticated source, never from the text
    ranks VARCHAR,  -- which record each prioritised field is from (merge.py)
    valid_from BIGINT,  -- validity of the fact itself, null when unbounded
    valid_to BIGINT,
    rules_version VARCHAR,
    collector VARCHAR,
    sequence BIGINT,  -- a merged memory gets the number of the commit that merged it
    recorded_at BIGINT
);
