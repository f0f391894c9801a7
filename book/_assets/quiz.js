// Quizzes: "Check" shows the feedback on the chosen option; the fold with all answers is for readers without scripts.
(function () {
  function setUp(quiz) {
    const button = quiz.querySelector("button");
    const result = quiz.querySelector(".companion-quiz-result");
    const feedback = [...quiz.querySelectorAll(".companion-quiz-feedback")];
    const homes = feedback.map((paragraph) => paragraph.parentElement);
    quiz.querySelector(".companion-quiz-answers").hidden = true;
    button.disabled = false;
    button.hidden = false;

    function clear() {
      feedback.forEach((paragraph, number) => homes[number].append(paragraph));
      result.replaceChildren();
      result.removeAttribute("data-state");
    }

    quiz.addEventListener("change", clear);
    quiz.addEventListener("submit", (event) => {
      event.preventDefault();
      clear();
      const chosen = quiz.querySelector("input:checked");
      const word = document.createElement("strong");
      const isRight = chosen?.value === quiz.dataset.right;
      result.dataset.state = !chosen ? "open" : isRight ? "right" : "wrong";
      word.textContent = !chosen ? "Choose an option first." : isRight ? "Right." : "Not quite.";
      result.append(word);
      if (chosen) {
        result.append(feedback[Number(chosen.value) - 1]);
      }
    });
  }

  document.querySelectorAll("form.companion-quiz").forEach(setUp);
})();
