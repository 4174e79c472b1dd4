//! Whatever compiles as an expression comes to an end, without a panic and within bounds.

#![no_main]

use std::sync::OnceLock;

use github_trigger::event::Event;
use github_trigger::template::Expression;
use github_trigger_fuzz::{event, on_a_large_stack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    static EVENT: OnceLock<Event> = OnceLock::new();
    let event = EVENT.get_or_init(event);
    on_a_large_stack(|| {
        let Ok(expression) = Expression::compile(source) else { return };
        let (first, second) = (expression.evaluate(event), expression.evaluate(event));
        assert_eq!(first, second);
        // What goes into the log names kinds of values, never a value.
        if let Err(error) = &first {
            let message = error.to_string();
            assert!(!message.contains("canary") || source.contains("canary"), "{message}");
        }
        let _ = expression.holds(event);
    });
});
