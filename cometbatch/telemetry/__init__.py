"""What a run tells a collector of OpenTelemetry, over OTLP: names, counts, spans, and the thread that sends them."""
