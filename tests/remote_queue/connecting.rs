//! What the host finds out at its start, and what it says when something is missing.

use std::time::Duration;

use aws_sdk_sqs::config::{BehaviorVersion, Region};
use gristmill::queue::{Queue, QueueError, sqs::SqsQueue};

use crate::{
    Rig, VISIBILITY, letter,
    support::cloud::{Cloud, Fault},
};

async fn refused(cloud: &Cloud, url: &str, dead: Option<&str>) -> String {
    match SqsQueue::connect(cloud.sqs().client(), url, dead, VISIBILITY).await {
        Err(QueueError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_redrive_policy_says_where_dead_letters_go() {
    let rig = Rig::new().await;
    assert_eq!(rig.queue.max_receives(), Some(5));
    let message = rig.one_in_flight().await;
    rig.queue.dead_letter(&message, &letter()).await.unwrap();
    assert_eq!((rig.count("uploads"), rig.count("dead")), (0, 1));
}

#[tokio::test]
async fn without_leave_to_look_up_the_url_it_is_told_from_the_queues_own() {
    let rig = Rig::with(|cloud| {
        cloud.faults(|call| match call.operation.as_str() {
            "GetQueueUrl" => Fault::Error { status: 403, code: "AccessDenied" },
            _ => Fault::None,
        });
    })
    .await;
    let message = rig.one_in_flight().await;
    rig.queue.dead_letter(&message, &letter()).await.unwrap();
    assert_eq!(rig.count("dead"), 1);
}

#[tokio::test]
async fn the_configuration_goes_before_the_policy() {
    let rig = Rig::new().await;
    let other = rig.cloud.sqs().create_queue("other");
    let url = rig.cloud.sqs().create_queue("uploads");
    let queue = SqsQueue::connect(rig.cloud.sqs().client(), &url, Some(&other), VISIBILITY).await.unwrap();
    let message = rig.one_in_flight().await;
    queue.dead_letter(&message, &letter()).await.unwrap();
    assert_eq!((rig.count("dead"), rig.count("other")), (0, 1));
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let cloud = Cloud::start();
    let (queues, url) = (cloud.endpoint(), cloud.sqs().create_queue("uploads"));
    let text = refused(&cloud, &format!("{queues}/123456789012/nothing"), None).await;
    assert!(text.contains("123456789012/nothing` exists and is in the region"), "{text}");
    let text = refused(&cloud, &url, Some(&format!("{queues}/123456789012/gone"))).await;
    assert!(text.contains("123456789012/gone` exists and is in the region"), "{text}");
    let text = refused(&cloud, &url, Some(&url)).await;
    assert!(text.contains("cannot be its own dead-letter queue; set `dead_letter_queue_url`"), "{text}");

    cloud.faults(|_| Fault::Error { status: 403, code: "AccessDenied" });
    let text = refused(&cloud, &url, None).await;
    assert!(text.contains("allow `sqs:GetQueueAttributes` on this queue in the policy"), "{text}");
    cloud.faults(|_| Fault::Error { status: 400, code: "ExpiredToken" });
    let text = refused(&cloud, &url, None).await;
    assert!(text.contains("ExpiredToken") && text.contains("log in again"), "{text}");
}

#[tokio::test]
async fn without_credentials_it_says_so() {
    let cloud = Cloud::start();
    let url = cloud.sqs().create_queue("uploads");
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(cloud.endpoint())
        .region(Region::new("us-east-1"))
        .build();
    let client = aws_sdk_sqs::Client::from_conf(config);
    let text = SqsQueue::connect(client, &url, None, VISIBILITY).await.unwrap_err().to_string();
    assert!(text.contains("give this host credentials"), "{text}");
}

#[tokio::test]
async fn nobody_there_is_an_outage() {
    let cloud = Cloud::start();
    let url = cloud.sqs().create_queue("uploads");
    let client = cloud.sqs().client();
    // A port that was free a moment ago.
    let endpoint = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let client = aws_sdk_sqs::Client::from_conf(client.config().to_builder().endpoint_url(endpoint).build());
    let text = SqsQueue::connect(client, &url, None, VISIBILITY).await.unwrap_err().to_string();
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn without_a_dead_letter_queue_what_died_is_put_aside() {
    let rig = Rig::with(|cloud| cloud.sqs().set("uploads", "RedrivePolicy", "{}")).await;
    let message = rig.one_in_flight().await;
    rig.queue.dead_letter(&message, &letter()).await.unwrap();
    assert_eq!(rig.queue.max_receives(), None);
    let left = rig.cloud.sqs().messages("uploads");
    assert!(left[0].visible_in > Duration::from_mins(50), "{left:?}");
    assert!(rig.queue.dead_letters().unwrap_err().to_string().contains("set `dead_letter_queue_url`"));
}

#[tokio::test]
async fn all_that_is_left_counts() {
    let rig = Rig::new().await;
    assert_eq!(rig.queue.left().await.unwrap(), 0);
    rig.in_flight(2).await;
    rig.cloud.sqs().send("uploads", "waiting");
    rig.cloud.sqs().set("uploads", "DelaySeconds", "60");
    rig.cloud.sqs().send("uploads", "delayed");
    assert_eq!(rig.queue.left().await.unwrap(), 4);
}
