//! What loops that build maps are made of.

use std::sync::Arc;

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, plain};
use crate::cel::macros::MAP_INSERT;
use crate::cel::value::{Entries, Map, Value};

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[function(
    MAP_INSERT,
    &[
        plain("@mapInsert_map_key_value", "map(K, V), K, V -> map(K, V)"),
        plain("@mapInsert_map_map", "map(K, V), map(K, V) -> map(K, V)"),
    ],
    insert,
)];

fn insert<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut entries = match &args[0] {
        Value::Map(map) => entries(map)?,
        _ => return Err(Fault::no_such_overload()),
    };
    match &args[1..] {
        [key, value] => add(&mut entries, key.clone(), value.clone())?,
        [Value::Map(more)] => {
            for key in more.keys() {
                let value = more.find(&key)?.unwrap_or(Value::Null);
                add(&mut entries, key, value)?;
            }
        }
        _ => return Err(Fault::no_such_overload()),
    }
    Ok(Value::Map(Map::Values(entries)))
}

fn entries<'a>(map: &Map<'a>) -> Result<Arc<Entries<'a>>, Fault> {
    if let Map::Values(entries) = map {
        return Ok(entries.clone());
    }
    let mut entries = Entries::default();
    for key in map.keys() {
        let value = map.find(&key)?.unwrap_or(Value::Null);
        entries.set(key, value)?;
    }
    Ok(Arc::new(entries))
}

fn add<'a>(entries: &mut Arc<Entries<'a>>, key: Value<'a>, value: Value<'a>) -> Result<(), Fault> {
    if key.key().is_some_and(|key| entries.get(&key).is_some()) {
        return Err(Fault::new(format!("insert failed: key {key} already exists")));
    }
    Arc::make_mut(entries).set(key, value)
}
