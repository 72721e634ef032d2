-- What belongs to a memory, in order of time: everything of its trace, the turns of its conversation,
-- what its session did before it, and the logs of its trace.
-- seconds  how long before and after the memory the conversation and session are looked at
-- most     rows at most, those nearest in time
-- at_ns    the time of the memory (nanoseconds) where it is known, else 0: only files around it are read then
CREATE OR REPLACE MACRO memory_context(memory_id, seconds := 300, most := 60, at_ns := 0) AS TABLE
WITH
it AS MATERIALIZED (
    SELECT * FROM lake.memories
    WHERE id = memory_id
        AND time_unix_nano BETWEEN at_ns AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns END
    LIMIT 1
),
around AS (
    SELECT
        m.id, m.type, m.time_unix_nano, m.title, m.outcome, m.service_name, m.span_id, m.sources,
        CASE
            WHEN m.trace_id = it.trace_id THEN 'trace'
            WHEN m.conversation_id = it.conversation_id THEN 'conversation'
            ELSE 'session'
        END AS shares
    FROM lake.memories AS m, it
    WHERE m.id <> it.id
        AND m.time_unix_nano BETWEEN at_ns - 3600000000000
            AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns + 3600000000000 END
        AND (
            m.trace_id = it.trace_id
            OR (
                abs(m.time_unix_nano - it.time_unix_nano) <= seconds * 1000000000::BIGINT
                AND (
                    nullif(m.conversation_id, '') = it.conversation_id
                    OR (nullif(m.session_id, '') = it.session_id AND m.type <> 'performance_metric')
                )
            )
        )
),
logged AS (
    SELECT
        coalesce(nullif(l.time_unix_nano, 0), l.observed_time_unix_nano) AS time_unix_nano,
        l.severity_text, l.service_name, l.span_id,
        CASE WHEN starts_with(l.body, '"') THEN l.body ->> '$' ELSE coalesce(l.body, l.event_name) END AS title
    FROM lake.logs AS l, it
    WHERE l.trace_id = it.trace_id
        AND (l.time_unix_nano = 0 OR l.time_unix_nano BETWEEN at_ns - 3600000000000
            AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns + 3600000000000 END)
        AND NOT list_contains(it.sources, l.content_hash)
        AND l.content_hash NOT IN (SELECT unnest(sources) FROM around)
),
together AS (
    SELECT 'memory' AS kind, shares, id, type, time_unix_nano, title, outcome, service_name, span_id FROM around
    UNION ALL BY NAME
    SELECT 'log' AS kind, 'trace' AS shares, lower(severity_text) AS type, time_unix_nano, title,
        service_name, span_id
    FROM logged
)
SELECT
    make_timestamp_ns(t.time_unix_nano) AS time,
    (t.time_unix_nano - it.time_unix_nano) / 1e9 AS seconds_after,
    t.kind, t.type, t.title, t.outcome, t.shares, t.service_name, t.id, t.span_id
FROM together AS t, it
QUALIFY row_number() OVER (ORDER BY abs(t.time_unix_nano - it.time_unix_nano), t.kind, t.id, t.title) <= most
ORDER BY t.time_unix_nano, t.kind DESC, t.type, t.id;
