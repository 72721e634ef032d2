-- Memories with TIMESTAMPs.
CREATE OR REPLACE VIEW memories_readable AS
SELECT
    make_timestamp_ns(time_unix_nano) AS time,
    make_timestamp_ns(end_time_unix_nano) AS end_time,
    make_timestamp_ns(recorded_at) AS recorded_time,
    len(sources) AS source_count,
    *
FROM memories;
