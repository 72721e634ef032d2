-- One view per memory type; {type} is filled in for each name of the taxonomy.
CREATE OR REPLACE VIEW {type} AS
SELECT
    make_timestamp_ns(time_unix_nano) AS time,
    id, title, content, importance, outcome, duration_ns / 1e6 AS duration_ms,
    service_name, subject, user_id, session_id, conversation_id, trace_id, span_id,
    fingerprint, tags, attributes, len(sources) AS source_count, source, trust
FROM memories
WHERE type = '{type}';
