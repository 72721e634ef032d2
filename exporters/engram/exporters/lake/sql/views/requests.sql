-- One row per request that was answered, with what it came to: the spans of kind server or consumer, and roots.
CREATE OR REPLACE VIEW requests AS
SELECT
    make_timestamp_ns(start_time_unix_nano) AS time,
    trace_id, span_id, parent_span_id, service_name,
    coalesce(http_request_method || ' ' || coalesce(http_route, attributes ->> '$."url.path"'), name) AS operation,
    http_request_method AS method, http_route AS route, http_response_status_code AS status,
    CASE
        WHEN status_code = 2 OR http_response_status_code >= 500 THEN 'error'
        WHEN http_response_status_code >= 400 THEN 'refused'
        ELSE 'ok'
    END AS came_to,
    error_type,
    (end_time_unix_nano - start_time_unix_nano) / 1e6 AS duration_ms,
    user_id, session_id
FROM spans
WHERE kind IN (2, 5) OR parent_span_id IS NULL;
