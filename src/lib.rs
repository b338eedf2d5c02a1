//! NATS JetStream as the database of event-sourced, domain-driven services.
