//! The members of a JSON object, taken one by one, with every fault noted on the way: whoever sent it reads all that is
//! wrong at once. A member that nobody took is one too.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{ApiError, Faults};

/// A request's body on its way to parsed values.
#[derive(Debug)]
pub struct Fields {
    members: Vec<(String, Value)>,
    pub faults: Faults,
}

impl Fields {
    /// # Errors
    /// [`ApiError::Validation`] when it is no JSON, no object, or names a member twice.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let invalid = |message: &str| ApiError::Validation(Faults::one("body", message));
        if body.is_empty() {
            return Err(invalid("must be a JSON object, and is empty"));
        }
        match serde_json::from_slice::<Members>(body) {
            Ok(Members(members)) => Ok(Self {
                members,
                faults: Faults::default(),
            }),
            Err(_) if !body.trim_ascii_start().starts_with(b"{") && is_json(body) => {
                Err(invalid("must be a JSON object"))
            }
            Err(error) if error.is_data() => Err(invalid(&error.to_string())),
            Err(error) => Err(invalid(&format!("is not valid JSON: {error}"))),
        }
    }

    /// Takes a member out; `null` is a value.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let place = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.swap_remove(place).1)
    }

    /// Takes a member that has to be there.
    pub fn require(&mut self, name: &str) -> Option<Value> {
        let value = self.take(name);
        if value.is_none() {
            self.faults.add(name, "is required");
        }
        value
    }

    /// Notes the fault of a member, and goes on without its value.
    pub fn noted<T>(&mut self, name: &str, parsed: Result<T, impl fmt::Display>) -> Option<T> {
        parsed
            .inspect_err(|fault| self.faults.add(name, fault.to_string()))
            .ok()
    }

    /// Notes what was not taken.
    pub fn refuse_others(&mut self) {
        for (name, _) in self.members.drain(..) {
            self.faults.add(&name, "is not a known field");
        }
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// An object whose members are all different: which one of two would count is a guess.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                let twice = format!("names the member {name:?} more than once");
                return Err(A::Error::custom(twice));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &[u8]) -> String {
        match Fields::parse(body) {
            Err(error) => {
                let answer = error.into_answer();
                assert_eq!(answer.status(), 422);
                String::from_utf8(answer.body().unwrap().to_vec()).unwrap()
            }
            Ok(fields) => panic!("{fields:?}"),
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["[]", "null", "\"x\"", "1", "true"] {
            assert!(
                fault(body.as_bytes()).contains("must be a JSON object"),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = format!("{{\"a\":{}", "[".repeat(10_000));
        for body in [
            "{",
            "{}}",
            "{\"a\":1,}",
            "a=1",
            " ",
            "{'a':1}",
            "{\"a\":\"\\ud800\"}",
            &deep,
        ] {
            assert!(
                fault(body.as_bytes()).contains("is not valid JSON"),
                "{body}"
            );
        }
        assert!(fault(b"{\"a\":\"\xff\"}").contains("is not valid JSON"));
        assert!(fault(b"").contains("is empty"));
    }

    #[test]
    fn a_member_named_twice_is_refused() {
        assert!(fault(br#"{"url":"a","url":"b"}"#).contains("more than once"));
    }

    #[test]
    fn null_and_absent_are_not_the_same() {
        let mut fields = Fields::parse(br#"{"a":null}"#).unwrap();
        assert_eq!(fields.take("a"), Some(Value::Null));
        assert_eq!(fields.take("b"), None);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut fields = Fields::parse(br#"{"x":1,"active":2}"#).unwrap();
        assert!(fields.require("url").is_none());
        let active = fields.take("active").unwrap();
        let parsed: Option<bool> =
            fields.noted("active", active.as_bool().ok_or("must be true or false"));
        assert_eq!(parsed, None);
        fields.refuse_others();
        let mut expected = Faults::one("url", "is required");
        expected.add("active", "must be true or false");
        expected.add("x", "is not a known field");
        assert_eq!(fields.faults, expected);
    }
}
