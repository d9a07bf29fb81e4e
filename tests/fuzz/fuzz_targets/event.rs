//! Any bytes as a message: no panic, and what was read can be written and read again.

#![no_main]

use gristmill::event::{self, Events};

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let Ok(events) = event::parse(message) else { return };
    for event in events.objects {
        let again = event::parse(&event::encode(&event));
        assert_eq!(again, Ok(Events { objects: vec![event], ignored: Vec::new() }));
    }
});
