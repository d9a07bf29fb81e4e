//! The sandbox from outside: whatever a plugin does, the call ends with the right name for it, and calls of
//! other plugins on the same engine and the same thread go on.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod sandbox {
    mod calls;
    mod fifty;
    mod hand_written;
    mod limits;
    mod neighbours;
    mod store_failures;
    mod survivors;
}
#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod guests;
}

use gristmill::plugin::{CallError, LimitHit, Plugin};

use support::guests::{Called, Calling, guest};

/// Makes a call in the middle of calls of well-behaved plugins, and sees to it that those don't notice.
async fn among_others(plugin: &Plugin, call: Calling) -> Called {
    let others = async {
        let (copy, upper) = (guest("copy"), guest("upper"));
        let body = |seed: usize| -> Vec<u8> { (0..150_000).map(|i| b'a' + (i * seed % 23) as u8).collect() };
        let copies = (1..4).map(|seed| {
            let copy = &copy;
            async move {
                let called = Calling::new("other.bin", body(seed)).run(copy).await;
                assert_eq!(called.outputs()[0].1, body(seed), "{:?}", called.report);
            }
        });
        let copies = copies.collect::<Vec<_>>();
        let [one, two, three] = copies.try_into().ok().unwrap();
        let loud = async {
            let called = Calling::new("other.txt", body(7)).run(&upper).await;
            assert_eq!(called.outputs()[0].1, body(7).to_ascii_uppercase(), "{:?}", called.report);
        };
        tokio::join!(one, two, three, loud);
    };
    // The others come first, so that they have begun when the guest does.
    let ((), called) = tokio::join!(others, call.run(plugin));
    called
}

/// A hostile guest's call was ended by this limit, and the text says which and how much.
fn assert_limit(called: &Called, expected: LimitHit, says: &str) {
    match &called.report.result {
        Err(error @ CallError::Limit { limit, .. }) => {
            assert_eq!(*limit, expected);
            assert!(error.to_string().contains(says), "{error}");
        }
        other => panic!("expected {expected:?}, not {other:?}"),
    }
    assert_not_survived(called);
}

/// A hostile guest broke, and the text says how.
fn assert_trap(called: &Called, says: &str) {
    match &called.report.result {
        Err(error @ CallError::Trap { .. }) => assert!(error.to_string().contains(says), "{error}"),
        other => panic!("expected a trap with {says:?}, not {other:?}"),
    }
    assert_not_survived(called);
}

fn assert_not_survived(called: &Called) {
    let survived = called.report.outputs.iter().find(|output| output.meta.key.ends_with(".survived"));
    assert_eq!(survived, None, "the host let it finish");
}

fn backtrace(called: &Called) -> &str {
    match &called.report.result {
        Err(CallError::Limit { backtrace, .. } | CallError::Trap { backtrace, .. }) => {
            backtrace.as_deref().unwrap_or("none")
        }
        other => panic!("{other:?} has no backtrace"),
    }
}
