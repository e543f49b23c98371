//! Spans and events, which vanish without the `tracing` feature. Nothing here is for the hot path.

/// Enters a span for the rest of the enclosing block: `span!(debug_span, "name", field = value)`.
macro_rules! span {
    ($kind:ident, $($fields:tt)+) => {
        #[cfg(feature = "tracing")]
        let _span = tracing::$kind!($($fields)+).entered();
    };
}

/// Emits an event: `event!(error, field = value, "text")`.
macro_rules! event {
    ($kind:ident, $($fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        tracing::$kind!($($fields)+);
    }};
}

pub(crate) use {event, span};
