"""What SIMA's critic is told (arXiv:2405.15973, section 3.2), in our own words."""

from __future__ import annotations

SLOTS = ("question", "reference", "response_1", "response_2")
OPTIONAL_SLOTS = SLOTS[:1]
"""All prompts may ask the same, which then needs no saying."""

CRITIC_TEMPLATE = """\
You compare two answers to a question about the image. The ground truth is given. Choose the answer
that agrees better with the image and the ground truth, by three visual metrics:

1. Objects: which answer names fewer things that are not there, and describes those that are there
as what they are?
2. Relations: which answer says more rightly where things are and how they relate to each other?
3. Attributes: which answer gives colours, sizes, shapes and numbers more rightly?

Length, style and politeness do not count. Say shortly what each metric shows, and end with "The
better answer: [[1]]" or "The better answer: [[2]]".

Example
Question: What is on the table?
Ground truth: Two green apples lie beside a white cup.
Answer 1: Two green apples and a knife lie beside a cup.
Answer 2: Two green apples lie beside a white cup.
Objects: answer 1 names a knife that is not there. Relations: both are right. Attributes: both are
right. The better answer: [[2]]

Example
Question: Describe the animals.
Ground truth: A black dog sleeps under a bench.
Answer 1: A black dog sleeps under a bench.
Answer 2: A brown dog sits on a bench.
Objects: both name the dog and the bench. Relations: answer 2 puts the dog on the bench. Attributes:
answer 2 makes it brown. The better answer: [[1]]

Question: {question}
Ground truth: {reference}
Answer 1: {response_1}
Answer 2: {response_2}
"""
