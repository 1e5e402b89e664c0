"""The names that MITRE ATLAS gives in its release 2026.07: the one table that pages are held to.

Read in public copies and mappings of that release (repository mitre-atlas/atlas-data). A
part of a technique stands with the technique's name before a colon where its own would not be
understood alone. When a later release renames one, change it here: the tests then name every page
that still has the old one.
"""

NAMES = {
    "AML.T0005": "Create Proxy AI Model",
    "AML.T0010.002": "AI Supply Chain Compromise: Data",
    "AML.T0010.003": "AI Supply Chain Compromise: Model",
    "AML.T0011.000": "User Execution: Unsafe AI Artifacts",
    "AML.T0015": "Evade AI Model",
    "AML.T0018.000": "Poison AI Model",
    "AML.T0020": "Training Data Poisoning",
    "AML.T0029": "Denial of AI Service",
    "AML.T0043.004": "Insert Backdoor Trigger",
    "AML.T0066": "Retrieval Content Crafting",
    "AML.T0070": "RAG Poisoning",
    "AML.T0115.000": "Publish Poisoned AI Artifacts: Datasets",
    "AML.M0003": "Predictive AI Model Hardening",
    "AML.M0006": "Predictive AI Ensembles",
    "AML.M0007": "Sanitize Training Data",
    "AML.M0014": "Verify AI Artifacts",
}

# Names of earlier releases, which no page may give any more.
FORMER = (
    "Poison Training Data",
    "Publish Poisoned Datasets",
    "Backdoor ML Model",
    "Use Ensemble Methods",
    "AML.M0003, Model Hardening",
    "AML.T0019",
    "AML.T0058",
)
