-- Logs with TIMESTAMPs and the body as plain text.
CREATE OR REPLACE VIEW logs_readable AS
SELECT
    make_timestamp_ns(
        CASE WHEN time_unix_nano = 0 THEN observed_time_unix_nano ELSE time_unix_nano END
    ) AS time,
    CASE WHEN starts_with(body, '"') THEN body ->> '$' ELSE body END AS body_text,
    *
FROM logs;
