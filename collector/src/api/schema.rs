//! JSON schemas of the messages in answers, from the `.proto` files: types, names and comments.

use std::collections::{BTreeMap, btree_map::Entry};

use buildtrail_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Map, Value, json};

const PACKAGE: &str = ".buildtrail.v1.";
/// Numbers of the fields of descriptors, as paths of comments name them.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const FIELDS: i32 = 2;

/// Everything that the `.proto` files define.
pub(super) struct Definitions {
    files: Vec<FileDescriptorProto>,
}

impl Definitions {
    pub(super) fn read() -> Result<Self, prost::DecodeError> {
        Ok(Self { files: FileDescriptorSet::decode(DESCRIPTORS)?.file })
    }

    /// Schemas of these messages and of all that they hold, by name.
    pub(super) fn schemas(&self, names: &[&str]) -> Map<String, Value> {
        let mut schemas = BTreeMap::new();
        let mut wanted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        while let Some(name) = wanted.pop() {
            if let Entry::Vacant(place) = schemas.entry(name) {
                let schema = self.schema(place.key(), &mut wanted);
                place.insert(schema);
            }
        }
        schemas.into_iter().collect()
    }

    fn schema(&self, name: &str, wanted: &mut Vec<String>) -> Value {
        for file in &self.files {
            if let Some((number, message)) = named(&file.message_type, name, |it: &DescriptorProto| it.name())
            {
                return of_message(file, number, message, wanted);
            }
            if let Some((number, of)) = named(&file.enum_type, name, |it: &EnumDescriptorProto| it.name()) {
                let values: Vec<&str> = of.value.iter().map(EnumValueDescriptorProto::name).collect();
                return described(json!({ "type": "string", "enum": values }), file, &[ENUMS, number]);
            }
        }
        json!({})
    }
}

fn named<'a, T>(all: &'a [T], name: &str, name_of: impl Fn(&T) -> &str) -> Option<(i32, &'a T)> {
    let number = all.iter().position(|it| name_of(it) == name)?;
    Some((i32::try_from(number).ok()?, all.get(number)?))
}

fn of_message(
    file: &FileDescriptorProto,
    number: i32,
    message: &DescriptorProto,
    wanted: &mut Vec<String>,
) -> Value {
    let mut properties = Map::new();
    for (place, field) in (0..).zip(&message.field) {
        let entry = message.nested_type.iter().find(|nested| {
            nested.options.as_ref().is_some_and(MessageOptions::map_entry)
                && field.type_name().ends_with(&format!(".{}", nested.name()))
        });
        let schema = match entry.and_then(|entry| entry.field.get(1)) {
            Some(value) => json!({ "type": "object", "additionalProperties": of_value(value, wanted) }),
            None if field.label() == Label::Repeated => {
                json!({ "type": "array", "items": of_value(field, wanted) })
            }
            None => of_value(field, wanted),
        };
        let path = [MESSAGES, number, FIELDS, place];
        properties.insert(field.name().to_owned(), described(schema, file, &path));
    }
    // As everywhere in protobuf JSON, what has its default value is left out.
    let schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    described(schema, file, &[MESSAGES, number])
}

fn of_value(field: &FieldDescriptorProto, wanted: &mut Vec<String>) -> Value {
    match field.r#type() {
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => json!({ "type": "integer" }),
        Type::Uint32 | Type::Fixed32 => json!({ "type": "integer", "minimum": 0 }),
        // Numbers of 64 bits are texts in protobuf JSON.
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => json!({ "type": "string", "pattern": "^-?[0-9]+$" }),
        Type::Uint64 | Type::Fixed64 => json!({ "type": "string", "pattern": "^[0-9]+$" }),
        Type::Double | Type::Float => json!({ "type": "number" }),
        Type::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::Message if field.type_name() == ".google.protobuf.Timestamp" => {
            json!({ "type": "string", "format": "date-time" })
        }
        Type::Message | Type::Enum => match field.type_name().strip_prefix(PACKAGE) {
            Some(name) => {
                wanted.push(name.to_owned());
                json!({ "$ref": format!("#/components/schemas/{name}") })
            }
            None => json!({}),
        },
        Type::String | Type::Group => json!({ "type": "string" }),
    }
}

/// Adds the comment in the `.proto` file.
fn described(mut schema: Value, file: &FileDescriptorProto, path: &[i32]) -> Value {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment =
        locations.filter(|location| location.path == path).find_map(|it| it.leading_comments.as_ref());
    if let (Some(comment), Some(schema)) = (comment, schema.as_object_mut()) {
        let words: Vec<&str> = comment.split_whitespace().collect();
        schema.insert("description".into(), words.join(" ").into());
    }
    schema
}
