//! Files that are made to take too much of the compiler, or of whoever loads them.

use std::{borrow::Cow, time::Duration};

use gristmill::plugin::{CompileLimits, Compiler, LoadError, Plugin};
use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentSectionId, ConstExpr, CustomSection, DataSection, EntityType, Function,
    FunctionSection, ImportSection, Instruction, MemorySection, MemoryType, Module, RawSection, RefType, TableSection,
    TableType, TypeSection, ValType,
};

use super::compiler::GRISTMILL;
use crate::support::guests::{bytes, engine, module};

/// A component that contains this core module, uses it, and is no plugin.
pub fn wrapped(module: &[u8]) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&RawSection { id: ComponentSectionId::CoreModule.into(), data: module });
    // (core instance (instantiate 0))
    component.section(&RawSection { id: ComponentSectionId::CoreInstance.into(), data: &[1, 0, 0, 0] });
    component.finish()
}

/// A component with one function of no parameters and no results.
fn function(locals: u32, body: impl FnOnce(&mut Function)) -> Vec<u8> {
    let mut function = Function::new([(locals, ValType::I32)]);
    body(&mut function);
    function.instruction(&Instruction::End);
    functions(1, &function)
}

fn functions(number: u32, function: &Function) -> Vec<u8> {
    let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    for _ in 0..number {
        functions.function(0);
        code.function(function);
    }
    wrapped(&Module::new().section(&types).section(&functions).section(&code).clone().finish())
}

/// Every loop begins with a choice for every local that is set in it.
fn loops(locals: u32, depth: u32) -> Vec<u8> {
    function(locals, |function| {
        for _ in 0..depth {
            function.instruction(&Instruction::Loop(BlockType::Empty));
        }
        for local in 0..locals {
            function.instruction(&Instruction::LocalGet((local + 7) % locals));
            function.instruction(&Instruction::LocalGet(local));
            function.instruction(&Instruction::I32Add);
            function.instruction(&Instruction::LocalSet(local));
        }
        for _ in 0..depth {
            function.instruction(&Instruction::LocalGet(0));
            function.instruction(&Instruction::BrIf(0));
            function.instruction(&Instruction::End);
        }
    })
}

/// Takes minutes, and not much memory.
pub fn giant_function() -> Vec<u8> {
    loops(3_000, 250)
}

fn jump_tables() -> Vec<u8> {
    const DEPTH: u32 = 1_000;
    function(1, |function| {
        for _ in 0..DEPTH {
            function.instruction(&Instruction::Block(BlockType::Empty));
        }
        for start in 0..DEPTH {
            let targets: Vec<u32> = (0..DEPTH).map(|target| (start + target * 7) % DEPTH).collect();
            function.instruction(&Instruction::Block(BlockType::Empty));
            function.instruction(&Instruction::LocalGet(0));
            function.instruction(&Instruction::BrTable(Cow::Owned(targets), 0));
            function.instruction(&Instruction::End);
        }
        for _ in 0..DEPTH {
            function.instruction(&Instruction::End);
        }
    })
}

fn nested_blocks() -> Vec<u8> {
    const DEPTH: u32 = 2_000_000;
    function(0, |function| {
        for _ in 0..DEPTH {
            function.instruction(&Instruction::Block(BlockType::Empty));
        }
        for _ in 0..DEPTH {
            function.instruction(&Instruction::End);
        }
    })
}

fn memory(pages: u64, data_at: &[i32]) -> Vec<u8> {
    let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
    memories.memory(MemoryType { minimum: pages, maximum: None, memory64: false, shared: false, page_size_log2: None });
    for at in data_at {
        data.active(0, &ConstExpr::i32_const(*at), [1]);
    }
    wrapped(&Module::new().section(&memories).section(&data).clone().finish())
}

fn table(elements: u64) -> Vec<u8> {
    let mut tables = TableSection::new();
    let element_type = RefType::FUNCREF;
    tables.table(TableType { element_type, minimum: elements, maximum: None, table64: false, shared: false });
    wrapped(&Module::new().section(&tables).clone().finish())
}

fn core_imports(number: u32) -> Vec<u8> {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    types.ty().function([], []);
    for import in 0..number {
        imports.import("m", &format!("f{import}"), EntityType::Function(0));
    }
    wrapped(&Module::new().section(&types).section(&imports).clone().finish())
}

fn custom_section(bytes: usize) -> Vec<u8> {
    let data = vec![0; bytes];
    wrapped(&Module::new().section(&CustomSection { name: "notes".into(), data: (&data).into() }).clone().finish())
}

/// Components in components, as text: `((((…))))`.
fn nested_components(depth: usize) -> Vec<u8> {
    let mut bytes = Component::new().finish();
    for _ in 0..depth {
        let mut outer = Component::new();
        outer.section(&RawSection { id: ComponentSectionId::Component.into(), data: &bytes });
        bytes = outer.finish();
    }
    bytes
}

/// Each type twice the one before.
fn doubling_types(number: usize) -> Vec<u8> {
    let mut wat = "(component (type $t0 (tuple u64 u64))".to_owned();
    for index in 1..number {
        wat += &format!("(type $t{index} (tuple $t{0} $t{0}))", index - 1);
    }
    wat += &format!("(import \"f\" (func (param \"x\" $t{}))))", number - 1);
    wat::parse_str(wat).unwrap()
}

fn component_imports(number: usize) -> Vec<u8> {
    let imports: String =
        (0..number).map(|index| format!("(import \"a:b/i{index}\" (instance (export \"f\" (func))))")).collect();
    wat::parse_str(format!("(component {imports})")).unwrap()
}

/// A plugin whose WIT is nonsense.
fn broken_wit() -> Vec<u8> {
    let data = vec![0x80; 4 << 20];
    let section = CustomSection { name: "component-type:x".into(), data: (&data).into() };
    Module::new().section(&section).clone().finish()
}

/// A good plugin that is many times as long as it should be.
fn padded() -> Vec<u8> {
    let mut bytes = module("(module)", "");
    let start = bytes.len();
    bytes.extend_from_slice(&[0, 0x80, 0x80, 0x80, 0x20, 1, b'x']);
    bytes.resize(start + 5 + (64 << 20), 0);
    bytes
}

/// What may come of a file.
type Ends = fn(&LoadError) -> bool;

fn bombs() -> Vec<(&'static str, Vec<u8>, Ends)> {
    use LoadError as E;
    let too_much: Ends = |error| matches!(error, E::CompileCpuTime(_) | E::CompileMemory(_));
    let invalid: Ends = |error| matches!(error, E::Invalid(_));
    // However long it took, it is compiled in the end, and then it is no plugin.
    let no_plugin: Ends = |error| matches!(error, E::NoProcess(_));
    let either: Ends =
        |error| matches!(error, E::NoProcess(_) | E::Invalid(_) | E::CompileCpuTime(_) | E::CompileMemory(_));
    let empty = Function::new([]).instruction(&Instruction::End).clone();
    vec![
        ("a function of minutes", giant_function(), too_much),
        ("a function of gigabytes", loops(40_000, 400), too_much),
        ("a thousand jump tables of a thousand targets", jump_tables(), either),
        ("two million blocks in blocks", nested_blocks(), either),
        ("fifty thousand locals", loops(50_000, 0), either),
        ("more locals than there may be", loops(50_001, 0), invalid),
        ("a hundred thousand functions", functions(100_000, &empty), either),
        ("a million and one functions", functions(1_000_001, &empty), invalid),
        ("4 GiB at the start", memory(65_536, &[]), invalid),
        ("more than 4 GiB at the start", memory(65_537, &[]), invalid),
        ("data at both ends of 1 GiB", memory(16_384, &[0, (1 << 30) - 1]), no_plugin),
        ("a hundred million table elements", table(100_000_000), invalid),
        ("more table elements than there may be", table(u64::from(u32::MAX)), invalid),
        ("fifty thousand imports", core_imports(50_000), invalid),
        ("fifty thousand imports of a component", component_imports(50_000), invalid),
        ("nine hundred imports of a component", component_imports(900), |error| {
            matches!(error, E::MissingImport { .. })
        }),
        ("a custom section of 64 MiB", custom_section(64 << 20), no_plugin),
        ("a hundred components in each other", nested_components(100), no_plugin),
        ("five thousand components in each other", nested_components(5_000), no_plugin),
        ("a type of 2^40 fields", doubling_types(40), invalid),
        ("WIT that is none", broken_wit(), |error| matches!(error, E::Componentize(_))),
        ("64 MiB of nothing behind a module", padded(), |error| matches!(error, E::Componentize(_))),
    ]
}

/// Each bomb ends with its reason within its limits, while good files are loaded beside it.
#[test]
fn whatever_a_file_takes_is_taken_from_a_child() {
    let limits = CompileLimits {
        memory: 1 << 30,
        cpu_time: Duration::from_secs(2),
        // The machine may be busy. None of these waits for anything but the processor.
        wall_time: Duration::from_secs(600),
    };
    let compiler = Compiler::in_child(GRISTMILL, limits);
    let mut unexpected = Vec::new();
    for (name, bomb, ends) in bombs() {
        let error = Plugin::load(engine(), &compiler, "bomb", &bomb).unwrap_err();
        println!("{name}, {} bytes: {error:.200}", bomb.len());
        if !ends(&error) {
            unexpected.push(format!("{name}: {error:?}"));
        }
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control) && text.len() < 5_000, "{name}: {text:?}");
        Plugin::load(engine(), &compiler, "nothing", &bytes("nothing")).unwrap();
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}
