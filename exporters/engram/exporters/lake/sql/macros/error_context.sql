-- All that is known about one failure, in one row: what it was, in which request, whose, in which
-- version, what happened before, which models and services were called, and what the request came to.
-- seconds, most   how far back, and how many of each list at most (the last ones)
-- at_ns           the time of the memory (nanoseconds) where it is known, else 0: only files around it are read then
CREATE OR REPLACE MACRO error_context(memory_id, seconds := 300, most := 20, at_ns := 0) AS TABLE
WITH RECURSIVE
error AS MATERIALIZED (
    SELECT * FROM lake.memories
    WHERE id = memory_id
        AND time_unix_nano BETWEEN at_ns AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns END
    LIMIT 1
),
trace AS MATERIALIZED (
    SELECT s.* EXCLUDE (events, links)
    FROM lake.spans AS s
    WHERE s.trace_id = (SELECT trace_id FROM error)
        AND s.start_time_unix_nano BETWEEN at_ns - 3600000000000
            AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns + 600000000000 END
),
-- The span of the failure and all above it. UNION and not UNION ALL: a circle of parents ends.
above (span_id) AS (
    SELECT span_id FROM error WHERE span_id IS NOT NULL
    UNION
    SELECT t.parent_span_id FROM trace AS t JOIN above AS a ON t.span_id = a.span_id
    WHERE t.parent_span_id IS NOT NULL
),
-- The request that it happened in: the nearest server or consumer span above it, else the root, else
-- the last one of its service that had begun.
request AS MATERIALIZED (
    SELECT t.*
    FROM trace AS t, error AS e
    WHERE t.kind IN (2, 5) OR t.parent_span_id IS NULL
    ORDER BY
        t.span_id IN (SELECT span_id FROM above) DESC,
        t.kind IN (2, 5) DESC,
        t.service_name IS NOT DISTINCT FROM e.service_name DESC,
        t.start_time_unix_nano <= e.time_unix_nano DESC,
        t.start_time_unix_nano DESC,
        t.span_id
    LIMIT 1
),
-- Parameters as an app reported them (`engram.request.*`, on the request or on its endpoint), redacted on the way in.
told AS (
    SELECT
        max(t.attributes ->> '$."engram.request.arguments"') AS arguments,
        max(t.attributes ->> '$."engram.request.body"') AS body
    FROM trace AS t, request AS r
    WHERE t.span_id = r.span_id OR t.parent_span_id = r.span_id
),
logged AS MATERIALIZED (
    SELECT
        l.* EXCLUDE (time_unix_nano),
        coalesce(nullif(l.time_unix_nano, 0), l.observed_time_unix_nano) AS time_unix_nano
    FROM lake.logs AS l, error AS e
    WHERE l.scope_name IS DISTINCT FROM 'engram.learning'
        AND (l.trace_id = e.trace_id OR l.session_id = nullif(e.session_id, '') OR list_contains(e.sources, l.content_hash))
        AND (l.time_unix_nano = 0 OR l.time_unix_nano BETWEEN at_ns - seconds * 1000000000::BIGINT
            AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns + 3600000000000 END)
),
origin AS (
    SELECT resource FROM (
        SELECT resource, 0 AS nth FROM trace, error WHERE trace.span_id = error.span_id
        UNION ALL
        SELECT l.resource, 1 FROM logged AS l, error AS e WHERE list_contains(e.sources, l.content_hash)
    )
    ORDER BY nth, resource
    LIMIT 1
),
nearby AS MATERIALIZED (
    SELECT m.*, m.trace_id IS NOT DISTINCT FROM e.trace_id AS same_trace
    FROM lake.memories AS m, error AS e
    WHERE m.id <> e.id
        AND m.time_unix_nano BETWEEN at_ns - 3600000000000
            AND CASE at_ns WHEN 0 THEN 9223372036854775807 ELSE at_ns + 3600000000000 END
        AND (
            m.trace_id = e.trace_id
            OR (
                m.session_id = nullif(e.session_id, '')
                AND m.time_unix_nano BETWEEN e.time_unix_nano - seconds * 1000000000::BIGINT AND e.time_unix_nano
            )
        )
),
happened AS (
    SELECT
        m.time_unix_nano, m.type AS what, m.title, m.outcome, m.service_name, m.id
    FROM nearby AS m
    WHERE m.type NOT IN ('api_call', 'ai_response', 'performance_metric', 'system_error', 'request_outcome')
        OR (NOT m.same_trace AND m.type <> 'performance_metric')
    UNION ALL
    SELECT
        l.time_unix_nano, 'log ' || lower(coalesce(l.severity_text, 'unset')),
        CASE WHEN starts_with(l.body, '"') THEN l.body ->> '$' ELSE coalesce(l.body, l.event_name) END,
        NULL, l.service_name, NULL
    FROM logged AS l, error AS e
    WHERE NOT list_contains(e.sources, l.content_hash)
        AND l.content_hash NOT IN (SELECT unnest(sources) FROM nearby)
),
before AS (
    SELECT
        h.*, (e.time_unix_nano - h.time_unix_nano) / 1e9 AS seconds_before,
        row_number() OVER (ORDER BY h.time_unix_nano DESC, h.id, h.title) AS nth
    FROM happened AS h, error AS e
    WHERE h.time_unix_nano BETWEEN e.time_unix_nano - seconds * 1000000000::BIGINT AND e.time_unix_nano
),
called AS (
    SELECT m.*, row_number() OVER (PARTITION BY m.type ORDER BY m.time_unix_nano DESC, m.id) AS nth
    FROM nearby AS m
    WHERE m.same_trace AND m.type IN ('ai_response', 'api_call', 'system_error')
)
SELECT
    e.id,
    make_timestamp_ns(e.time_unix_nano) AS time,
    e.type AS memory_type,
    e.attributes ->> '$.type' AS type,
    coalesce(e.attributes ->> '$.message', e.title) AS message,
    coalesce(e.attributes ->> '$.stacktrace', e.attributes ->> '$.stack') AS stacktrace,
    e.attributes ->> '$.frame' AS frame,
    e.attributes ->> '$.place' AS place,
    e.fingerprint,
    len(e.sources) AS reports,
    e.trust,
    nullif(e.user_id, '') AS user_id,
    nullif(e.session_id, '') AS session_id,
    nullif(e.conversation_id, '') AS conversation_id,
    e.trace_id, e.span_id,
    (
        SELECT {
            'name': resource ->> '$."service.name"',
            'version': resource ->> '$."service.version"',
            'namespace': resource ->> '$."service.namespace"',
            'instance': resource ->> '$."service.instance.id"',
            'deployment': coalesce(
                resource ->> '$."deployment.environment.name"', resource ->> '$."deployment.environment"'
            ),
            'host': resource ->> '$."host.name"',
            'commit': resource ->> '$."vcs.ref.head.revision"',
            'language': resource ->> '$."telemetry.sdk.language"',
            'sdk': resource ->> '$."telemetry.sdk.name"',
            'sdk_version': resource ->> '$."telemetry.sdk.version"',
            'runtime': resource ->> '$."process.runtime.version"'
        } FROM origin
    ) AS service,
    (
        SELECT {
            'span_id': r.span_id,
            'service': r.service_name,
            'operation': r.name,
            'method': coalesce(r.http_request_method, r.attributes ->> '$."http.method"'),
            'route': r.http_route,
            'path': coalesce(
                r.attributes ->> '$."url.path"', r.attributes ->> '$."http.target"', r.attributes ->> '$."http.url"'
            ),
            'query': r.attributes ->> '$."url.query"',
            'arguments': told.arguments,
            'body': told.body,
            'status': r.http_response_status_code,
            'started': make_timestamp_ns(r.start_time_unix_nano),
            'duration_ms': (r.end_time_unix_nano - r.start_time_unix_nano) / 1e6,
            'failed_after_ms': (e.time_unix_nano - r.start_time_unix_nano) / 1e6,
            'came_to': coalesce(
                (
                    SELECT max(title) FROM nearby
                    WHERE type = 'request_outcome' AND same_trace AND span_id = r.span_id
                ),
                CASE WHEN r.status_code = 2 THEN 'error' ELSE 'ok' END
            )
        } FROM request AS r, told
    ) AS request,
    (
        SELECT list(
            {
                'time': make_timestamp_ns(time_unix_nano), 'seconds_before': seconds_before, 'what': what,
                'title': title, 'outcome': outcome, 'service': service_name, 'id': id
            } ORDER BY nth DESC
        ) FROM before WHERE nth <= most
    ) AS before,
    (
        SELECT list(
            {
                'time': make_timestamp_ns(time_unix_nano), 'title': title, 'model': attributes ->> '$.model',
                'provider': attributes ->> '$.provider', 'outcome': outcome, 'duration_ms': duration_ns / 1e6,
                'input_tokens': (attributes ->> '$.input_tokens')::BIGINT,
                'output_tokens': (attributes ->> '$.output_tokens')::BIGINT, 'id': id
            } ORDER BY nth DESC
        ) FROM called WHERE type = 'ai_response' AND nth <= most
    ) AS llm_calls,
    (
        SELECT list(
            {
                'time': make_timestamp_ns(time_unix_nano), 'title': title, 'outcome': outcome,
                'duration_ms': duration_ns / 1e6, 'service': service_name, 'id': id
            } ORDER BY nth DESC
        ) FROM called WHERE type = 'api_call' AND nth <= most
    ) AS calls,
    (
        SELECT list(
            {
                'time': make_timestamp_ns(time_unix_nano), 'title': title, 'service': service_name, 'id': id
            } ORDER BY nth DESC
        ) FROM called WHERE type = 'system_error' AND nth <= most
    ) AS other_errors
FROM error AS e;
