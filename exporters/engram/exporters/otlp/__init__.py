"""OTLP bytes to columns and back: descriptors, decoder, encoder, and the check before an ack."""
