use bson::doc;

use super::*;

fn raw(document: Document) -> RawBson {
    Bson::Document(document).try_into().unwrap()
}

fn spec(document: Document) -> Fields {
    document.into_iter().map(|(name, value)| (name, value.try_into().unwrap())).collect()
}

/// The buckets of a time-series collection with these indexes.
fn buckets(indexes: Vec<Document>) -> Metadata {
    let series = doc! {"timeField": "at", "metaField": "place", "granularity": "seconds"};
    let options = doc! {"validator": {"$jsonSchema": {}}, "clusteredIndex": true, "timeseries": series};
    let indexes = indexes.into_iter().map(|index| (index.get_str("name").unwrap().to_owned(), spec(index)));
    let collection =
        Collection { ns: "shop.system.buckets.weather".into(), options: spec(options), indexes: indexes.collect() };
    Metadata::of(Uuid([1; 16]), &collection).unwrap()
}

#[test]
fn a_time_series_collection_is_told_as_its_client_made_it() {
    let metadata = buckets(vec![]);
    assert_eq!(
        (&*metadata.name, metadata.kind, metadata.data_name()),
        ("weather", Kind::TimeSeries, "system.buckets.weather".into())
    );
    assert_eq!(
        metadata.document["options"],
        json!({"timeseries": {"timeField": "at", "metaField": "place", "granularity": "seconds"}})
    );
    assert_eq!(metadata.document["collectionName"], "weather");
}

/// Each as the server keeps it, and as it says it.
#[test]
fn its_indexes_are_of_its_own_fields() {
    let one = |n: i32| json!({"$numberInt": n.to_string()});
    for (kept, said) in [
        (doc! {"meta": 1}, json!({"place": one(1)})),
        (doc! {"meta.city": -1}, json!({"place.city": one(-1)})),
        (doc! {"meta": "hashed"}, json!({"place": "hashed"})),
        (doc! {"control.min.at": 1, "control.max.at": 1}, json!({"at": one(1)})),
        (doc! {"control.max.at": -1, "control.min.at": -1}, json!({"at": one(-1)})),
        (
            doc! {"meta": 1, "control.max.at": -1, "control.min.at": -1, "control.min.a.b": 1, "control.max.a.b": 1},
            json!({"place": one(1), "at": one(-1), "a.b": one(1)}),
        ),
        (doc! {"data.spot": "2dsphere_bucket"}, json!({"spot": "2dsphere"})),
        // What is nothing of these stays as it is.
        (doc! {"control.min.at": 1}, json!({"control.min.at": one(1)})),
        (doc! {"control.min.at": 1, "control.max.b": 1}, json!({"control.min.at": one(1), "control.max.b": one(1)})),
    ] {
        let metadata = buckets(vec![doc! {"v": 2, "key": kept.clone(), "name": "x"}]);
        let index = &metadata.document["indexes"][0];
        assert_eq!((&index["key"], &index["name"]), (&said, &json!("x")), "{kept}");
    }
    let original = doc! {"key": {"at": 1}, "name": "x", "partialFilterExpression": {"place": "bern"}};
    let kept = doc! {"v": 2, "key": {"control.min.at": 1, "control.max.at": 1}, "name": "x", "originalSpec": original};
    let index = &buckets(vec![kept]).document["indexes"][0];
    assert_eq!(index["partialFilterExpression"], json!({"place": "bern"}));
    assert_eq!((&index["key"], index.get("originalSpec")), (&json!({"at": one(1)}), None));
}

#[test]
fn views_are_told_and_time_series_collections_are_not_told_twice() {
    let of = |document: Document| {
        let RawBson::Document(document) = raw(document) else { unreachable!() };
        Metadata::of_view("shop", &document)
    };
    let view = of(doc! {"_id": "shop.cheap", "viewOn": "goods", "pipeline": [{"$limit": 1}]}).unwrap().unwrap();
    assert_eq!((&*view.name, view.kind), ("cheap", Kind::View));
    assert_eq!(view.document["options"], json!({"viewOn": "goods", "pipeline": [{"$limit": {"$numberInt": "1"}}]}));
    assert_eq!(of(doc! {"_id": "shop.weather", "viewOn": "system.buckets.weather", "pipeline": []}).unwrap(), None);
    for wrong in [doc! {"viewOn": "goods"}, doc! {"_id": 1}, doc! {"_id": "other.cheap"}] {
        assert!(matches!(of(wrong), Err(SnapshotError::Document { ns, .. }) if ns == "shop.system.views"));
    }
}
