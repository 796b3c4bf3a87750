//! Certificates as the admin API shows them: without their keys.

use gateway::Facts;
use model::certificate;
use serde_json::Value;

/// Takes away what is secret, and puts in what the certificate says of itself.
pub(super) fn show(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    for hidden in certificate::HIDDEN {
        fields.remove(hidden);
    }
    let chain = fields.get("chain").and_then(Value::as_str).unwrap_or_default();
    if let Ok(facts) = Facts::of_chain(chain)
        && let Ok(facts) = serde_json::to_value(facts)
    {
        fields.insert("leaf".to_owned(), facts);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_is_shown_without_its_key() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let mut spec =
            json!({"chain": made.cert.pem(), "key": made.signing_key.serialize_pem(), "default": true});
        show(&mut spec);
        assert!(!spec.to_string().contains("PRIVATE"), "{spec}");
        assert_eq!((&spec["leaf"]["hosts"], &spec["default"]), (&json!(["a.example"]), &json!(true)));
        let mut unreadable = json!({"chain": 7, "key": "hush"});
        show(&mut unreadable);
        assert_eq!(unreadable, json!({"chain": 7}));
    }
}
