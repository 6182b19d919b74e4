# SPDX-License-Identifier: BSD-3-Clause
"""The JSON of requests and answers, as OpenAPI describes it."""

from pydantic import BaseModel, ConfigDict, Field


class JsonImage(BaseModel):
    """An image in a JSON request."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(description="the bytes of the file in base64")
    name: str = Field("image", description="repeated in the answer")


class JsonImages(BaseModel):
    """A JSON request."""

    model_config = ConfigDict(extra="forbid")

    images: list[JsonImage]


class Problem(BaseModel):
    """Why there is no result."""

    reason: str = Field(description="one word, such as truncated, too_large or not_an_image")
    message: str = Field(description="a sentence for people")


class TagAnswer(BaseModel):
    """A class predicted for an image."""

    index: int = Field(description="class index")
    id: str = Field(description="WordNet id of the class")
    name: str = Field(description="all synonyms of the class")
    score: float = Field(description="probability of the class")
    path: list[str] = Field(description="names from the root of the hierarchy to the class")
    threshold: float | None = Field(description="of the class, from thresholds.tsv, if it has one")


class NearestImage(BaseModel):
    """An image of the export that is like the image of the request."""

    row: int = Field(description="row of the export, see /v1/exported")
    name: str = Field(description="name of the image in the export")
    similarity: float = Field(description="cosine of the angle between the features")


class TaggedImage(BaseModel):
    """The tags of an image, best first, or why there are none."""

    name: str
    tags: list[TagAnswer]
    nearest: list[NearestImage] = Field([], description="if asked for: best first")
    error: Problem | None = None


class TagsAnswer(BaseModel):
    """Images in the order of the request; at least one of them was read."""

    images: list[TaggedImage]


class ImageFeatures(BaseModel):
    """The pooled features of an image, the classifier's input, or why there are none."""

    name: str
    features: list[float]
    error: Problem | None = None


class FeaturesAnswer(BaseModel):
    """Images in the order of the request; at least one of them was read."""

    images: list[ImageFeatures]


class ErrorAnswer(BaseModel):
    """The answer to a request without a result."""

    error: Problem


class Health(BaseModel):
    """The state of the server."""

    status: str = Field(description="ready, starting, draining or failed")


class ModelAnswer(BaseModel):
    """The model and the limits of requests."""

    classes: int
    image_size: int = Field(description="side of the network's input in pixels")
    loss: str = Field(description="softmax: one class per image; any other: several")
    features: int = Field(description="length of the features")
    has_thresholds: bool = Field(description="whether every class has a threshold of its own")
    max_images: int = Field(description="images in a request")
    max_image_bytes: int
    max_request_bytes: int
    max_tags: int = Field(description="the largest k")
    exported: int = Field(description="images among which nearest ones are found; 0: none are")
