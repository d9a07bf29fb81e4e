//! The plugin that does nothing: the object is moved on as it is.
//!
//! It never reads, so the host moves the object inside the store without downloading it. It is also the
//! shortest whole plugin there is, and a good one to copy.

#[cfg(target_arch = "wasm32")]
mod guest {
    use self::bindings::{Body, Failure, ObjectInfo, Verdict};

    #[allow(unsafe_code, reason = "the generated bindings speak the canonical ABI")]
    mod bindings {
        use super::Plugin;

        wit_bindgen::generate!({ path: "../../wit", world: "plugin" });
        export!(Plugin with_types_in self);
    }

    struct Plugin;

    impl bindings::Guest for Plugin {
        fn process(_object: ObjectInfo, _input: Body) -> Result<Verdict, Failure> {
            Ok(Verdict::Done)
        }
    }
}
