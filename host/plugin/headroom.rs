//! Memory that a plugin has from the start, so that its growth costs nothing.
//!
//! The allocator that a language brings along grows the memory for its very first byte, whatever is free
//! there. Each growth is an `mprotect` that the next instance undoes with another, and both stop every
//! thread of the process that runs on another core. So before it is compiled a core module gets a larger
//! memory, and what it does with `memory.grow` and `memory.size` is counted by the module itself until that
//! much is used up. It sees the sizes that it would have seen. The one difference: an access behind the end
//! of its memory traps only behind what it really has.
//!
//! What cannot be changed in this way without being noticed stays as it is: a component in which a core module
//! grows the memory of another one, as the adapters of some languages do.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use wasm_encoder::{
    BlockType, Component, Encode as _, Function, MemorySection, MemoryType, Module, RawSection, ValType,
};
use wasmparser::{BinaryReader, FromReader, FunctionBody, Imports, Operator, RecGroup, SectionLimited, TypeRef};

use crate::config::MAX_MEMORY;

/// What a module has beyond the memory that it asks for: enough for a plugin that streams in chunks of a usual
/// size. One that needs more works on a large object, where a growth does not count.
pub const HEADROOM: u64 = 1 << 20;

const PAGE: u64 = 64 << 10;

/// Components in components that are looked into. Tools that compose make two or three levels; the stack
/// bounds it somewhere.
const MAX_DEPTH: usize = 16;

/// What a module and a component start with: magic number, version and layer.
const HEADER: usize = 8;
const LAYER_OF_COMPONENTS: u8 = 1;

/// Sections of a core module, and of a component.
mod id {
    pub const CUSTOM: u8 = 0;
    pub const TYPE: u8 = 1;
    pub const IMPORT: u8 = 2;
    pub const FUNCTION: u8 = 3;
    pub const MEMORY: u8 = 5;
    pub const GLOBAL: u8 = 6;
    /// The first of those that follow the globals.
    pub const EXPORT: u8 = 7;
    pub const CODE: u8 = 10;
    /// The last of them.
    pub const DATA_COUNT: u8 = 12;
    pub const CORE_MODULE: u8 = 1;
    pub const NESTED_COMPONENT: u8 = 4;
}

/// Custom sections that say something about single instructions by their offset, which changes. They are hints.
const CODE_METADATA: &str = "metadata.code.";

/// The same component with headroom, or as it is when it cannot have any. What cannot be read is also left
/// as it is: the compiler says what is wrong with it.
pub fn with_headroom(component: &[u8]) -> Cow<'_, [u8]> {
    rewrite_component(component, 0).map_or(Cow::Borrowed(component), Cow::Owned)
}

/// Nothing when the component has to stay as it is.
fn rewrite_component(component: &[u8], depth: usize) -> Option<Vec<u8>> {
    if depth >= MAX_DEPTH || component.get(HEADER - 2) != Some(&LAYER_OF_COMPONENTS) {
        return None;
    }
    let mut rewritten = Component::new();
    for Section { id, content } in sections(component)? {
        let data = match id {
            id::CORE_MODULE => rewrite_module(content)?,
            id::NESTED_COMPONENT => rewrite_component(content, depth + 1)?.into(),
            _ => Cow::Borrowed(content),
        };
        rewritten.section(&RawSection { id, data: &data });
    }
    Some(rewritten.finish())
}

#[derive(Clone, Copy)]
struct Section<'a> {
    id: u8,
    content: &'a [u8],
}

/// Components and modules are framed in the same way.
fn sections(binary: &[u8]) -> Option<Vec<Section<'_>>> {
    let mut reader = BinaryReader::new(binary, 0);
    reader.read_bytes(HEADER).ok()?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        sections.push(Section { id, content: reader.read_bytes(size as usize).ok()? });
    }
    Some(sections)
}

/// Nothing when this module makes it impossible for all of the component.
fn rewrite_module(module: &[u8]) -> Option<Cow<'_, [u8]>> {
    let sections = sections(module)?;
    let Some(plan) = Plan::of(&sections)? else { return Some(Cow::Borrowed(module)) };
    let mut rewritten = Module::new();
    let mut has_globals = false;
    for Section { id, content } in sections {
        if !has_globals && (id::EXPORT..=id::DATA_COUNT).contains(&id) {
            rewritten.section(&RawSection { id: id::GLOBAL, data: &extended(&[0], &plan.global())? });
            has_globals = true;
        }
        let data = match id {
            id::CUSTOM if is_code_metadata(content) => continue,
            id::TYPE => extended(content, &SIGNATURE)?,
            id::FUNCTION => extended(content, &encoded(plan.types))?,
            id::MEMORY => {
                rewritten.section(MemorySection::new().memory(plan.memory()));
                continue;
            }
            id::GLOBAL => {
                has_globals = true;
                extended(content, &plan.global())?
            }
            id::CODE => plan.code(content)?,
            _ => content.to_vec(),
        };
        rewritten.section(&RawSection { id, data: &data });
    }
    Some(rewritten.finish().into())
}

/// `(func (param i32) (result i32))`, that of `memory.grow`, as the type section has it.
const SIGNATURE: [u8; 5] = [0x60, 1, 0x7f, 1, 0x7f];

/// What is added to a module that gets headroom: each at the end of its index space, so that nothing that is
/// there changes its number.
struct Plan {
    /// How many types, functions and globals there are, imported ones included.
    types: u32,
    functions: u32,
    globals: u32,
    initial: u64,
    maximum: Option<u64>,
}

impl Plan {
    /// Inner nothing when the module needs no headroom, outer nothing when the memory that it deals with is not
    /// its own, or of a kind that this host does not know.
    fn of(sections: &[Section<'_>]) -> Option<Option<Self>> {
        let mut plan = Self { types: 0, functions: 0, globals: 0, initial: 0, maximum: None };
        let (mut own, mut others, mut grows, mut looks) = (0, 0, false, false);
        for Section { id, content } in sections {
            match *id {
                id::TYPE => {
                    for group in items::<RecGroup>(content)? {
                        plan.types += u32::try_from(group.ok()?.types().len()).ok()?;
                    }
                }
                id::IMPORT => {
                    for import in items::<Imports<'_>>(content)? {
                        let Imports::Single(_, import) = import.ok()? else { return None };
                        match import.ty {
                            TypeRef::Func(_) | TypeRef::FuncExact(_) => plan.functions += 1,
                            TypeRef::Global(_) => plan.globals += 1,
                            TypeRef::Memory(_) => others += 1,
                            TypeRef::Table(_) | TypeRef::Tag(_) => {}
                        }
                    }
                }
                id::FUNCTION => plan.functions += count(content)?,
                id::GLOBAL => plan.globals += count(content)?,
                id::MEMORY => {
                    for memory in items::<wasmparser::MemoryType>(content)? {
                        let memory = memory.ok()?;
                        if memory.memory64 || memory.shared || memory.page_size_log2.is_some() {
                            return None;
                        }
                        own += 1;
                        (plan.initial, plan.maximum) = (memory.initial, memory.maximum);
                    }
                }
                id::CODE => {
                    for body in items::<FunctionBody<'_>>(content)? {
                        for site in sites(&body.ok()?)? {
                            grows |= site.does == Does::Grow;
                            looks |= site.does == Does::Look;
                        }
                    }
                }
                _ => {}
            }
        }
        match (own, others) {
            _ if !grows && !looks => Some(None),
            (1, 0) => Some(grows.then_some(plan)),
            _ => None,
        }
    }

    fn memory(&self) -> MemoryType {
        let most = self.maximum.unwrap_or(u64::MAX).min(MAX_MEMORY / PAGE);
        let minimum = self.initial.saturating_add(HEADROOM / PAGE).min(most).max(self.initial);
        MemoryType { minimum, maximum: self.maximum, memory64: false, shared: false, page_size_log2: None }
    }

    /// The size that the module believes its memory to have: `(global (mut i32) (i32.const initial))`.
    fn global(&self) -> Vec<u8> {
        const MUTABLE_I32: [u8; 2] = [0x7f, 1];
        let mut global = MUTABLE_I32.to_vec();
        wasm_encoder::ConstExpr::i32_const(u32::try_from(self.initial).unwrap_or(u32::MAX).cast_signed())
            .encode(&mut global);
        global
    }

    fn code(&self, content: &[u8]) -> Option<Vec<u8>> {
        let mut code = encoded(count(content)?.checked_add(1)?);
        for body in items::<FunctionBody<'_>>(content)? {
            let body = body.ok()?;
            self.body(&body)?.as_slice().encode(&mut code);
        }
        self.grow().encode(&mut code);
        Some(code)
    }

    fn body(&self, body: &FunctionBody<'_>) -> Option<Vec<u8>> {
        let (bytes, start) = (body.as_bytes(), body.range().start);
        let mut rewritten = Vec::with_capacity(bytes.len());
        let mut copied = 0;
        for Site { does, from, to } in sites(body)? {
            rewritten.extend_from_slice(bytes.get(copied..from - start)?);
            let mut sink = wasm_encoder::InstructionSink::new(&mut rewritten);
            match does {
                Does::Grow => sink.call(self.functions),
                Does::Look => sink.global_get(self.globals),
            };
            copied = to - start;
        }
        rewritten.extend_from_slice(bytes.get(copied..)?);
        Some(rewritten)
    }

    /// What stands for `memory.grow`: hands out what is there, and then grows the memory by what is missing.
    fn grow(&self) -> Function {
        const PAGES: u32 = 0;
        const LEFT: u32 = 1;
        let size = self.globals;
        let mut function = Function::new([(1, ValType::I32)]);
        function
            .instructions()
            .local_get(PAGES)
            .memory_size(0)
            .global_get(size)
            .i32_sub()
            .local_tee(LEFT)
            .i32_gt_u()
            .if_(BlockType::Empty)
            .local_get(PAGES)
            .local_get(LEFT)
            .i32_sub()
            .memory_grow(0)
            .i32_const(-1)
            .i32_eq()
            .if_(BlockType::Empty)
            .i32_const(-1)
            .return_()
            .end()
            .end()
            // The size from before is the result.
            .global_get(size)
            .global_get(size)
            .local_get(PAGES)
            .i32_add()
            .global_set(size)
            .end();
        function
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Grow,
    Look,
}

/// An instruction that has to do with the memory's size, and where it stands.
struct Site {
    does: Does,
    from: usize,
    to: usize,
}

fn sites(body: &FunctionBody<'_>) -> Option<Vec<Site>> {
    let mut operators = body.get_operators_reader().ok()?;
    let mut sites = Vec::new();
    while !operators.eof() {
        let from = operators.original_position();
        let does = match operators.read().ok()? {
            Operator::MemoryGrow { .. } => Does::Grow,
            Operator::MemorySize { .. } => Does::Look,
            _ => continue,
        };
        sites.push(Site { does, from, to: operators.original_position() });
    }
    Some(sites)
}

fn is_code_metadata(content: &[u8]) -> bool {
    BinaryReader::new(content, 0).read_string().is_ok_and(|name| name.starts_with(CODE_METADATA))
}

fn items<'a, T: FromReader<'a>>(content: &'a [u8]) -> Option<SectionLimited<'a, T>> {
    SectionLimited::new(BinaryReader::new(content, 0)).ok()
}

/// Of the items of a section, which starts with it.
fn count(content: &[u8]) -> Option<u32> {
    BinaryReader::new(content, 0).read_var_u32().ok()
}

/// A section's content with one more item.
fn extended(content: &[u8], item: &[u8]) -> Option<Vec<u8>> {
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32().ok()?;
    let mut extended = encoded(count.checked_add(1)?);
    extended.extend_from_slice(content.get(reader.current_position()..)?);
    extended.extend_from_slice(item);
    Some(extended)
}

fn encoded(number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    number.encode(&mut bytes);
    bytes
}
