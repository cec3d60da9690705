//! Which options a configuration has, asked of its type: whoever deserializes a struct is told the names of its fields.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

/// Every option of `T`, as `section.key`. What is no struct is one option, a map too.
pub fn of<T: DeserializeOwned>() -> Vec<String> {
    let mut found = Vec::new();
    descend::<T>(&mut Vec::new(), &mut found);
    found
}

fn descend<T: DeserializeOwned>(path: &mut Vec<&'static str>, found: &mut Vec<String>) {
    match fields_at::<T>(path) {
        None => found.push(path.join(".")),
        Some(fields) => {
            for field in fields {
                path.push(field);
                descend::<T>(path, found);
                path.pop();
            }
        }
    }
}

/// The fields of the struct at a path, `None` where there is a value.
fn fields_at<T: DeserializeOwned>(path: &[&'static str]) -> Option<&'static [&'static str]> {
    let mut fields = None;
    // Always an error: there is nothing at the end of the path.
    let _nothing = T::deserialize(Asked {
        path,
        fields: &mut fields,
    });
    fields
}

/// Goes along the path, and notes what is asked for at its end.
struct Asked<'a> {
    path: &'a [&'static str],
    fields: &'a mut Option<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("only asked"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.path.split_first() {
            Some((first, path)) => visitor.visit_map(OneField {
                name: Some(first),
                value: Asked {
                    path,
                    fields: self.fields,
                },
            }),
            None => {
                *self.fields = Some(fields);
                self.deserialize_any(visitor)
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct OneField<'a> {
    name: Option<&'static str>,
    value: Asked<'a>,
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let name = self.name.take();
        name.map(|name| {
            let name: StrDeserializer<'_, Error> = name.into_deserializer();
            seed.deserialize(name)
        })
        .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Asked { path, fields } = &mut self.value;
        seed.deserialize(Asked { path, fields })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Outer {
        _plain: bool,
        _inner: Inner,
        _map: BTreeMap<String, Inner>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "optional")]
        _optional: Option<String>,
        #[serde(rename = "list")]
        _list: Vec<SocketAddr>,
    }

    #[test]
    fn the_keys_of_a_type_are_found_at_every_depth() {
        let expected = ["_plain", "_inner.optional", "_inner.list", "_map"];
        assert_eq!(super::of::<Outer>(), expected);
    }
}
