-- Metric points with TIMESTAMPs and one numeric value for gauges and sums.
CREATE OR REPLACE VIEW metrics_readable AS
SELECT
    make_timestamp_ns(time_unix_nano) AS time,
    coalesce(value_double, value_int) AS value,
    *
FROM metrics;
