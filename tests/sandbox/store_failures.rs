//! A store that fails under a call is not the plugin's fault, whatever the plugin makes of it.

use gristmill::{io::IoError, plugin::CallError};

use crate::{
    among_others,
    support::guests::{Called, Calling, MemoryBody, guest, on_one_thread},
};

fn unavailable() -> IoError {
    IoError::Unavailable("the disk is full".into())
}

fn assert_unavailable(called: &Called) {
    match &called.report.result {
        Err(CallError::Io(IoError::Unavailable(reason))) => assert_eq!(reason, "the disk is full"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_that_fails_ends_the_call_as_the_store_s_failure() {
    on_one_thread(async || {
        let body = MemoryBody::new(vec![0; 200_000]).failing_at(150_000, unavailable());
        let called = among_others(&guest("copy"), Calling::new("cat.jpg", vec![0; 200_000]).body(body)).await;
        assert_unavailable(&called);
        assert_eq!(called.report.bytes_read, 128 << 10, "what came before the failure");
    });
}

#[test]
fn an_object_that_changes_ends_the_call_even_of_a_guest_that_would_go_on() {
    on_one_thread(async || {
        for name in ["spin-in-host", "giant-read", "trap-mid-write"] {
            let body = MemoryBody::new("meow").failing_at(0, IoError::Superseded);
            let called = among_others(&guest(name), Calling::new("cat.jpg", "meow").body(body)).await;
            assert!(matches!(called.report.result, Err(CallError::Io(IoError::Superseded))), "{:?}", called.report);
        }
    });
}

#[test]
fn a_write_that_fails_ends_the_call_even_of_a_guest_that_rejects() {
    on_one_thread(async || {
        for name in ["copy", "reject", "retry", "skip", "output-flood"] {
            let call = Calling::new("cat.jpg", "meow").failing_outputs(unavailable());
            assert_unavailable(&among_others(&guest(name), call).await);
        }
    });
}
