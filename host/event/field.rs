//! A field of JSON that somebody else wrote: taken in one pass, whatever is in it.
//!
//! What is of another kind than it should be is remembered as that, so that only a message that is not JSON
//! ends the reading, and the caller can say in which record the field is. Nothing is kept of what nobody
//! asked for, so a message takes no more memory than it has bytes, however it is nested.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// What a field holds.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    /// Nothing, or `null`: AWS's own documents take the two for the same.
    #[default]
    Absent,
    /// What it should.
    Is(T),
    /// Something of this kind instead.
    IsNot(&'static str),
}

impl<T: Wanted> Field<T> {
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value, or why there is none. `name` is the field's.
    pub fn required(self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("it has no `{name}`"))
    }

    /// The value, if there is one, or why it cannot be used.
    pub fn optional(self, name: &str) -> Result<Option<T>, String> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(value) => Ok(Some(value)),
            Self::IsNot(kind) => Err(format!("its `{name}` is {kind}, and should be {}", T::KIND)),
        }
    }
}

impl Field<String> {
    /// The text, if there is some. Several stores write `""` for what they don't have.
    pub fn text(self, name: &str) -> Result<Option<String>, String> {
        Ok(self.optional(name)?.filter(|text| !text.is_empty()))
    }

    /// The text, or why there is none.
    pub fn required_text(self, name: &str) -> Result<String, String> {
        let text = self.required(name)?;
        if text.is_empty() { Err(format!("its `{name}` is empty")) } else { Ok(text) }
    }
}

/// A kind of value. Every function answers nothing when the value is of another kind, and has then read
/// over it.
pub(super) trait Wanted: Sized {
    /// With its article.
    const KIND: &'static str;

    fn from_text(_text: String) -> Option<Self> {
        None
    }

    fn from_number(_number: u64) -> Option<Self> {
        None
    }

    fn from_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        skip_list(&mut list)?;
        Ok(None)
    }

    fn from_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Reads over the rest of a list.
pub(super) fn skip_list<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

impl Wanted for String {
    const KIND: &'static str = "a string";

    fn from_text(text: String) -> Option<Self> {
        Some(text)
    }
}

impl Wanted for u64 {
    const KIND: &'static str = "a whole number";

    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

/// An object with the fields of `T`. Unlike what serde derives, it is not taken from a list as well.
#[derive(Debug)]
pub(super) struct Object<T>(pub T);

impl<T: de::DeserializeOwned> Wanted for Object<T> {
    const KIND: &'static str = "an object";

    fn from_object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(|fields| Some(Self(fields)))
    }
}

impl<'de, T: Wanted> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

fn field<T>(value: Option<T>, kind: &'static str) -> Field<T> {
    value.map_or(Field::IsNot(kind), Field::Is)
}

impl<'de, T: Wanted> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::KIND)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::IsNot("a boolean"))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(field(T::from_number(number), "a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::IsNot("a negative number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::IsNot("a number with a fraction or beyond 64 bits"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(field(T::from_text(text.to_owned()), "a string"))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(field(T::from_text(text), "a string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Ok(field(T::from_list(list)?, "a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        Ok(field(T::from_object(object)?, "an object"))
    }
}
