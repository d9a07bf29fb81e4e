//! A module with headroom beside the same one without: it must not be able to tell.

use proptest::prelude::*;
use wasmtime::{Engine, Instance, Memory, Store, TypedFunc};

use super::*;

/// Grows and looks from functions in whose bodies these are not all there is.
const GROWER: &str = r#"
    (import "" "seen" (func $seen (param i32)))
    (func (export "grow") (param i32) (result i32)
        (call $seen (i32.const 7))
        (if (result i32) (i32.eqz (i32.const 0)) (then (memory.grow (local.get 0))) (else (i32.const 5))))
    (func (export "size") (result i32) (i32.mul (memory.size) (i32.const 1)))
    (func (export "other") (result i32) (i32.const 9))
    (data (i32.const 8) "here from the start")
"#;

fn grower(memory: &str, globals: &str) -> String {
    format!("(module {GROWER} (memory (export \"memory\") {memory}) {globals})")
}

/// Without what this build of wasmtime leaves out.
fn engine() -> Engine {
    Engine::new(wasmtime::Config::new().gc_support(false)).unwrap()
}

struct Module {
    store: Store<()>,
    grow: TypedFunc<i32, i32>,
    size: TypedFunc<(), i32>,
    memory: Memory,
}

impl Module {
    fn new(engine: &Engine, bytes: &[u8]) -> Self {
        let module = wasmtime::Module::new(engine, bytes).unwrap();
        let mut store = Store::new(engine, ());
        let seen = wasmtime::Func::wrap(&mut store, |_: i32| ());
        let instance = Instance::new(&mut store, &module, &[seen.into()]).unwrap();
        let grow = instance.get_typed_func(&mut store, "grow").unwrap();
        let size = instance.get_typed_func(&mut store, "size").unwrap();
        let other = instance.get_typed_func::<(), i32>(&mut store, "other").unwrap();
        assert_eq!(other.call(&mut store, ()).unwrap(), 9);
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        assert_eq!(&memory.data(&store)[8..27], b"here from the start");
        Self { store, grow, size, memory }
    }

    fn grow(&mut self, pages: u32) -> (i32, i32) {
        let before = self.grow.call(&mut self.store, pages.cast_signed()).unwrap();
        (before, self.size.call(&mut self.store, ()).unwrap())
    }

    fn has(&self) -> u64 {
        self.memory.size(&self.store)
    }
}

fn rewritten(wat: &str) -> Option<Vec<u8>> {
    rewrite_module(&wat::parse_str(wat).unwrap()).map(Cow::into_owned)
}

fn is_unchanged(wat: &str) -> bool {
    rewritten(wat).is_some_and(|bytes| bytes == wat::parse_str(wat).unwrap())
}

#[test]
fn small_growths_change_nothing_but_what_the_module_believes() {
    let mut module = Module::new(&engine(), &rewritten(&grower("2", "")).unwrap());
    assert_eq!(module.has(), 2 + HEADROOM / PAGE);
    assert_eq!(module.grow(1), (2, 3));
    assert_eq!(module.grow(15), (3, 18));
    assert_eq!(module.has(), 18);
    assert_eq!(module.grow(4), (18, 22));
    assert_eq!(module.has(), 22);
}

#[test]
fn the_maximum_of_a_memory_holds() {
    let mut module = Module::new(&engine(), &rewritten(&grower("1 4", "")).unwrap());
    assert_eq!(module.has(), 4);
    assert_eq!(module.grow(4), (-1, 1));
    assert_eq!(module.grow(3), (1, 4));
    assert_eq!(module.grow(1), (-1, 4));
    // The whole of what the pool has for a memory is not exceeded either.
    let most = MAX_MEMORY / PAGE;
    let module = Module::new(&engine(), &rewritten(&grower(&format!("{}", most - 1), "")).unwrap());
    assert_eq!(module.has(), most);
}

#[test]
fn a_module_that_does_not_grow_stays_as_it_is() {
    assert!(is_unchanged("(module (memory 1) (func (result i32) (memory.size)))"));
    assert!(is_unchanged("(module (import \"\" \"m\" (memory 1)) (func (drop (i32.load (i32.const 0)))))"));
    assert!(is_unchanged("(module)"));
}

#[test]
fn a_module_that_deals_with_the_memory_of_another_prevents_it() {
    let import = |body: &str| format!("(module (import \"\" \"m\" (memory 1)) (func {body}))");
    assert_eq!(rewritten(&import("(drop (memory.grow (i32.const 1)))")), None);
    assert_eq!(rewritten(&import("(drop (memory.size))")), None);
    assert_eq!(rewritten("(module (memory i64 1) (func (drop (memory.grow (i64.const 1)))))"), None);

    let own = "(core module (memory 1) (func (drop (memory.grow (i32.const 1)))))";
    let others = "(core module (import \"\" \"m\" (memory 1)) (func (drop (memory.grow (i32.const 1)))))";
    let bytes = |modules: &str| wat::parse_str(format!("(component {modules} (component {own}))")).unwrap();
    let (good, bad) = (bytes(own), bytes(&format!("{own} {others}")));
    assert_ne!(*with_headroom(&good), *good);
    wasmtime::component::Component::new(&engine(), with_headroom(&good)).unwrap();
    assert_eq!(*with_headroom(&bad), *bad);
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let own = "(core module (memory 1) (func (drop (memory.grow (i32.const 1)))))";
        let text = format!("{}{own}{}", "(component ".repeat(depth), ")".repeat(depth));
        wat::parse_str(text).unwrap()
    };
    assert_ne!(*with_headroom(&nested(MAX_DEPTH)), *nested(MAX_DEPTH));
    assert_eq!(*with_headroom(&nested(MAX_DEPTH + 1)), *nested(MAX_DEPTH + 1));
}

#[test]
fn hints_about_instructions_that_move_are_dropped() {
    let hints = format!(
        "(module (memory 1) (func (drop (memory.grow (i32.const 1)))) (@custom \"{CODE_METADATA}x\" \"!\") (@custom \"name-of-mine\" \"!\"))"
    );
    let names: Vec<String> = sections(&rewritten(&hints).unwrap())
        .unwrap()
        .into_iter()
        .filter(|section| section.id == id::CUSTOM)
        .map(|section| BinaryReader::new(section.content, 0).read_string().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["name-of-mine"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_module_can_tell(
        initial in 0..40_u64,
        more in proptest::option::of(0..40_u64),
        globals in 0..3_usize,
        // Mostly small ones, and some that overflow when they are added up.
        pages in proptest::collection::vec(prop_oneof![8 => 0..12_u32, 1 => 60_000..70_000_u32, 1 => any::<u32>()], 1..12),
    ) {
        let memory = format!("{} {}", initial.max(1), more.map_or(String::new(), |more| (initial.max(1) + more).to_string()));
        let globals = "(global (mut i32) (i32.const 3))".repeat(globals);
        let wat = grower(&memory, &globals);
        let engine = engine();
        let mut plain = Module::new(&engine, &wat::parse_str(&wat).unwrap());
        let mut roomy = Module::new(&engine, &rewritten(&wat).unwrap());
        for pages in pages {
            // The whole address space is more than this test should ask for.
            if !(1_000..=65_536).contains(&pages) {
                prop_assert_eq!(plain.grow(pages), roomy.grow(pages));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        with_headroom(&bytes);
        for header in [b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"] {
            with_headroom(&[&header[..], &bytes].concat());
            rewrite_module(&[&header[..], &bytes].concat());
        }
    }
}
