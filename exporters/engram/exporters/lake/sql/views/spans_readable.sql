-- Spans with TIMESTAMPs, a duration, and the words for kind and status.
CREATE OR REPLACE VIEW spans_readable AS
SELECT
    make_timestamp_ns(start_time_unix_nano) AS start_time,
    make_timestamp_ns(end_time_unix_nano) AS end_time,
    (end_time_unix_nano - start_time_unix_nano) / 1e6 AS duration_ms,
    CASE kind
        WHEN 1 THEN 'internal' WHEN 2 THEN 'server' WHEN 3 THEN 'client'
        WHEN 4 THEN 'producer' WHEN 5 THEN 'consumer' ELSE 'unspecified'
    END AS kind_name,
    CASE status_code WHEN 1 THEN 'ok' WHEN 2 THEN 'error' ELSE 'unset' END AS status,
    *
FROM spans;
